"""Lists of videos that are asked about: whatever their labels are, and wherever they lie."""

from __future__ import annotations

import pytest

from timesformer.datasets.lists.records import Images
from timesformer.datasets.lists.unlabelled import read_videos
from timesformer.utils.errors import AnnotationError

FRAME_ROW = "original_vido_id video_id frame_id path labels"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of files and frames, which isn't the current one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("a.mp4", "b b.mp4", "x,y.mp4", "n\u2028l.mp4", "class 1/abc_000003_000013.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "f").mkdir()
    return tmp_path


def paths_of(folder, text):
    (folder / "list.csv").write_text(text, encoding="utf-8")
    found = [record.path for record in read_videos(folder / "list.csv")]
    return [path.removeprefix(f"{folder}/") for path in found]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a.mp4\nb b.mp4\n", ["a.mp4", "b b.mp4"]),
        ("gone.mp4\nb b.mp4\n", ["gone.mp4", "b b.mp4"]),
        ("gone.mp4 3\nb b.mp4 4\n", ["gone.mp4", "b b.mp4"]),
        ('"x,y.mp4"\na.mp4\n', ["x,y.mp4", "a.mp4"]),
        ("n\u2028l.mp4\r\na.mp4\r\n", ["n\u2028l.mp4", "a.mp4"]),
        ("a.mp4 moving_left\nb b.mp4 air drumming\n", ["a.mp4", "b b.mp4"]),
        ("path,label\nb b.mp4,3 point shot\na.mp4,in\n", ["b b.mp4", "a.mp4"]),
        ('"x,y.mp4",cat,dog\na.mp4,cat\n', ["x,y.mp4", "a.mp4"]),
        ("a.mp4 3,17\nb b.mp4 1\n", ["a.mp4", "b b.mp4"]),
        ("a.mp4 3 17 5\nb b.mp4 1 2 3\n", ["a.mp4", "b b.mp4"]),
        (
            "label,youtube_id,time_start,time_end,split\nclass 1,abc,3,13,test\nin,d,0,1,test\n",
            ["class 1/abc_000003_000013.mp4", "in/d_000000_000001.mp4"],
        ),
    ],
)
def test_labels_of_any_kind(folder, text, paths):
    """The first row's file may be missing: the others are where they are."""
    assert paths_of(folder, text) == paths


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4,0,1,in\nb b.mp4,1,2,out\n",  # times: parts of a video
        "a.mp4,0.5,1.5\n",
        "video,start,end,label\na.mp4,0,1,in\n",
        "a.mp4 in\nsomething else\n",
        "gone.mp4 in\n",
    ],
)
def test_what_says_more_than_labels_is_refused(folder, text):
    with pytest.raises(AnnotationError, match=r"list\.csv, line"):
        paths_of(folder, text)


def test_images_of_a_folder_stay_what_they_are(folder):
    """Parts of one folder are videos of their own; a file has no images."""
    (folder / "list.txt").write_text("f 0 19 1\nf 19 19 2\n")
    found = [(record.path, record.images) for record in read_videos(folder / "list.txt")]
    assert found == [(f"{folder}/f", Images(0, 19)), (f"{folder}/f", Images(19, 19))]
    (folder / "list.txt").write_text("a.mp4 300 1\n")
    assert [record.images for record in read_videos(folder / "list.txt")] == [None]
    (folder / "list.txt").write_text(f'{FRAME_ROW}\nv 0 0 f/07.jpg ""\nv 0 1 f/08.jpg ""\n')
    (record,) = read_videos(folder / "list.txt")
    assert (record.path, record.images) == (f"{folder}/f", Images(7, 2, "07.jpg"))
