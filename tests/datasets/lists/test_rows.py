"""What a list of videos may look like, and what its errors say."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.lists.rows import read_list
from timesformer.utils.errors import AnnotationError

NAMES = ("abseiling", "air drumming", "drumming", "arranging, flowers", "hula_hoop")
PROVIDER = "label,youtube_id,time_start,time_end,split\n"


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(tmp_path: Path, content: str | bytes, **options: object) -> list[tuple]:
    records = read_list(write(tmp_path, content), 5, **options)  # type: ignore[arg-type]
    return [(record.path, record.label) for record in records]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.mp4 0\nb/c.mp4 2\n", [("a.mp4", 0), ("b/c.mp4", 2)]),
        ("my video.mp4 1\n\n  \n b.mp4  2", [("my video.mp4", 1), ("b.mp4", 2)]),
        ("/abs/a.mp4 0\n../b.mp4 1\n", [("/abs/a.mp4", 0), ("../b.mp4", 1)]),
        ("\ufeffa.mp4 0\r\nvidéo.mp4 1\r\n", [("a.mp4", 0), ("vidéo.mp4", 1)]),
        ("one\u2028line.mp4 1\n", [("one\u2028line.mp4", 1)]),
        ("a.mp4\t2\nb c.mp4\t\t1\n", [("a.mp4", 2), ("b c.mp4", 1)]),
        ("a.mp4,2\nb c.mp4, 1\nd.mp4 ,0\n", [("a.mp4", 2), ("b c.mp4", 1), ("d.mp4", 0)]),
        ("a.mp4::2\nb c.mp4 :: 1\n", [("a.mp4", 2), ("b c.mp4", 1)]),
        (
            '"a, b.mp4",2\n"c, d.mp4","1"\n"e f.mp4" 0\n',
            [("a, b.mp4", 2), ("c, d.mp4", 1), ("e f.mp4", 0)],
        ),
        ('"a "" b.mp4",2\n7" single.mp4 1\n', [('a " b.mp4', 2), ('7" single.mp4', 1)]),
        ("frames/001 3\nframes/0 0 1 2\n", [("frames/001", 3), ("frames/0", 2)]),
    ],
)
@pytest.mark.parametrize("separator", [" ", "\t", "::", "|"])
def test_separators(tmp_path: Path, content: str, expected: list, separator: str) -> None:
    assert rows(tmp_path, content, separator=separator) == expected


@pytest.mark.parametrize(
    ("row", "separator", "expected"),
    [
        ("a::b,c\t 3", "\t", ("a::b,c", 3)),
        ("a,b.mp4,3", ",", ("a,b.mp4", 3)),
        ("a.mp4|3", "|", ("a.mp4", 3)),
        ("frames/abc 3,17", ",", ("frames/abc 3", 17)),
        ("a, b\t3", "\t", ("a, b", 3)),
    ],
)
def test_the_configured_separator_comes_first(
    tmp_path: Path, row: str, separator: str, expected: tuple
) -> None:
    records = read_list(write(tmp_path, row), 18, separator=separator)
    assert [tuple(record[:2]) for record in records] == [expected]


@pytest.mark.parametrize(
    "header",
    ["path label", "path,label", "video_path\tclass", "filename::label", '"video","label"'],
)
def test_a_header_is_skipped_in_the_first_row_only(tmp_path: Path, header: str) -> None:
    expected = [("a.mp4", 0)]
    assert rows(tmp_path, f"\n{header}\na.mp4 0\n") == expected
    assert rows(tmp_path, f"\ufeff{header.upper()}\r\na.mp4 0\r\n") == expected
    with pytest.raises(AnnotationError, match=r"line 2: the label '.*' is not an integer"):
        rows(tmp_path, f"a.mp4 0\n{header}\n")


@pytest.mark.parametrize(
    "row", ["video.mp4 label", "videos/a label", "video yoga", "label path", "path label 7"]
)
def test_only_a_header_is_taken_for_one(tmp_path: Path, row: str) -> None:
    with pytest.raises(AnnotationError, match="line 1: "):
        rows(tmp_path, f"{row}\na.mp4 0\n")


def test_a_class_may_be_called_as_a_column(tmp_path: Path) -> None:
    assert rows(tmp_path, "video label\n", class_names=("label",)) == [("video", 0)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a.mp4 300 2", ("a.mp4", 2)),
        ("a.mp4  300  2", ("a.mp4", 2)),
        ("a.mp4,300,2", ("a.mp4", 2)),
        ("a.mp4::300::2", ("a.mp4", 2)),
        ("my video.webm 300 2", ("my video.webm", 2)),
        ("a.mp4 300 air drumming", ("a.mp4", 1)),
        ("frames/a 300 2", ("frames/a", 2)),
        ("frames/v1.5 300 2", ("frames/v1.5", 2)),
        ('"my frames/a" 300 2', ("my frames/a", 2)),
        ("my frames/a\t300\t2", ("my frames/a", 2)),
        ("take 12.mp4 2", ("take 12.mp4", 2)),
        ("2 2", ("2", 2)),
    ],
)
def test_frame_counts(tmp_path: Path, row: str, expected: tuple) -> None:
    assert rows(tmp_path, row, class_names=NAMES) == [expected]
    (record,) = read_list(tmp_path / "train.csv", 5, class_names=NAMES)
    assert record.images == (Images(0, 300) if "300" in row else None)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a.mp4 abseiling", ("a.mp4", 0)),
        ("my a.mp4 air drumming", ("my a.mp4", 1)),
        ("a.mp4 drumming", ("a.mp4", 2)),
        ("a.mp4,air_drumming", ("a.mp4", 1)),
        ("a.mp4\thula_hoop", ("a.mp4", 4)),
        ("a.mp4::hula hoop", ("a.mp4", 4)),
        ('a.mp4,"arranging, flowers"', ("a.mp4", 3)),
        ("air drumming/a.mp4 2", ("air drumming/a.mp4", 2)),
        # no label: the folder has it
        ("air drumming/a.mp4", ("air drumming/a.mp4", 1)),
        ("/videos/air_drumming/my a.avi", ("/videos/air_drumming/my a.avi", 1)),
        ('"hula hoop/a, b.avi"', ("hula hoop/a, b.avi", 4)),
        ("abseiling/frames_of_a", ("abseiling/frames_of_a", 0)),
    ],
)
def test_class_names(tmp_path: Path, row: str, expected: tuple) -> None:
    assert rows(tmp_path, row, class_names=NAMES) == [expected]
    path, label = expected
    assert rows(tmp_path, row, class_names=NAMES, multi_label=True) == [(path, (label,))]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a.mp4 3,1", (1, 3)),
        ("a.mp4 3, 1,3", (1, 3)),
        ("a.mp4,3,1", (1, 3)),
        ('a.mp4,"3,1"', (1, 3)),
        ("a.mp4\t4", (4,)),
        ("a.mp4 drumming,air drumming,0", (0, 1, 2)),
        ("a.mp4::hula hoop,air_drumming", (1, 4)),
    ],
)
@pytest.mark.parametrize("separator", [" ", ","])
def test_several_labels(tmp_path: Path, row: str, expected: tuple, separator: str) -> None:
    options = {"separator": separator, "class_names": NAMES, "multi_label": True}
    assert rows(tmp_path, row, **options) == [("a.mp4", expected)]


def test_several_labels_that_are_not_joined_with_commas(tmp_path: Path) -> None:
    """As mmaction2 writes them; after a folder they could be its frames."""
    assert rows(tmp_path, "a.mp4 1 2 3", multi_label=True) == [("a.mp4", (1, 2, 3))]
    assert rows(tmp_path, "test.mp4 0 2 4", multi_label=True) == [("test.mp4", (0, 2, 4))]
    for row in ("frames/a 1 2 3", "frames/a 1 2,3", '"frames/a" 1 2,3', "a.mp4 1 2,3"):
        with pytest.raises(AnnotationError, match=r"before the labels: join .* commas .*frames"):
            rows(tmp_path, row, multi_label=True)


@pytest.mark.parametrize(
    "row", ["videos/abc.mp4 3,2", "a.mp4 1 2 3", "my clip.mp4 1, 2", "a.mp4,1,2,3", "a.mp4\t1 2"]
)
def test_several_labels_where_one_is_expected(tmp_path: Path, row: str) -> None:
    with pytest.raises(AnnotationError, match=r"line 1: several labels .* DATA\.MULTI_LABEL True"):
        rows(tmp_path, row)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("x/a.mp4 3 4\nb.mp4 2\n", 2),
        ("frames/a 3 4\nb.mp4 2\nc.mp4 1\n\na.mp4 1 3\n", 5),
        ('"a b.mp4",2\nb.mp4,3,2\n', 2),
    ],
)
def test_several_labels_that_look_like_numbers_of_frames(
    tmp_path: Path, content: str, line: int
) -> None:
    """Some rows have one label and others two, as mmaction2 writes them."""
    where = rf"line {line}: .*line \d has a number .* line \d has none: .*DATA.MULTI_LABEL True"
    with pytest.raises(AnnotationError, match=where):
        rows(tmp_path, content)
    for same in ("a.mp4 3 4\nb.mp4 9 2\n", "frames/a 3 4\nframes/b 2\n", "f/a 3 4\na.mp4 1\n"):
        rows(tmp_path, same)


def test_offset_and_number_of_frames(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("some/directory-1 163 12 2\n")
    (record,) = read_list(tmp_path / "train.csv", 5)
    assert record == Record("some/directory-1", 2, images=Images(163, 12))


def test_a_list_keeps_its_separator(tmp_path: Path) -> None:
    """With commas in the first row, a later path may hold what else would part it."""
    assert rows(tmp_path, "a b.mp4,1\nc d,3\n") == [("a b.mp4", 1), ("c d", 3)]


@pytest.mark.parametrize("row", ["a/.. 1", ".. 1", "./.. 1", '"" 1', '"'])
def test_paths_that_are_none(tmp_path: Path, row: str) -> None:
    with pytest.raises(AnnotationError, match="line 1"):
        rows(tmp_path, row, prefix="videos")


def test_a_list_that_is_a_fifo(tmp_path: Path, make_fifo: Callable[[Path], None]) -> None:
    make_fifo(tmp_path / "train.csv")
    with pytest.raises(AnnotationError, match=r"train\.csv: can't be read: not a regular file"):
        read_list(tmp_path / "train.csv", 5)


PROVIDER_ROWS = (
    PROVIDER + '"arranging, flowers",-a_B,3,13,train\nair drumming,xyz,120.0,130,train\n'
)
FILES = ("-a_B_000003_000013.mp4", "xyz_000120_000130.mp4")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("", FILES),
        ("arranging, flowers", (f"arranging, flowers/{FILES[0]}", f"air drumming/{FILES[1]}")),
        ("arranging,_flowers", (f"arranging,_flowers/{FILES[0]}", f"air_drumming/{FILES[1]}")),
        ("train", (f"train/{FILES[0]}", f"train/{FILES[1]}")),
        (
            "train/arranging, flowers",
            (f"train/arranging, flowers/{FILES[0]}", f"train/air drumming/{FILES[1]}"),
        ),
    ],
)
def test_provider_lists(tmp_path: Path, folder: str, expected: tuple) -> None:
    root = tmp_path / "videos"
    (root / folder).mkdir(parents=True)
    found = rows(tmp_path, PROVIDER_ROWS, prefix=str(root), class_names=NAMES)
    assert found == [(f"{root}/{expected[0]}", 3), (f"{root}/{expected[1]}", 1)]


@pytest.mark.parametrize("word", ["val", "validate"])
def test_a_copy_of_the_validation_list_finds_its_videos(tmp_path: Path, word: str) -> None:
    root = tmp_path / "videos"
    (root / "val").mkdir(parents=True)
    (tmp_path / "test.csv").write_text(f"{PROVIDER}drumming,xyz,1,2,{word}\n")
    (record,) = read_list(tmp_path / "test.csv", 4, prefix=str(root), class_names=NAMES)
    assert record.path == f"{root}/val/xyz_000001_000002.mp4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "youtube_id,time_start,time_end,split\nx,1,2,test\n",
            "line 1: there is no column 'label'",
        ),
        (PROVIDER + "yoga,x,1,2,train\n", "line 2: the label 'yoga' is neither an integer nor"),
        (PROVIDER + "drumming,x,1\n", "line 2: no label, youtube_id, time_start, time_end in 'dru"),
        (PROVIDER + "drumming,x,one,2,train\n", "line 2: no label, youtube_id"),
        (PROVIDER + "drumming,x,inf,2,train\n", "line 2: no label, youtube_id"),
        (PROVIDER + "drumming,../x,1,2,train\n", "line 2: '../x_0.*' leaves DATA.PATH_PREFIX 'v'"),
        (PROVIDER, "the list has no videos"),
    ],
)
def test_bad_provider_lists(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        rows(tmp_path, content, prefix="v", class_names=NAMES)
    with pytest.raises(AnnotationError, match=r"line 2: .*set DATA.CLASS_NAMES"):
        rows(tmp_path, PROVIDER_ROWS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a.mp4 0\n\nb.mp4\n",
            r"csv, line 3: no label in 'b.mp4'; a row is a path, one of ' ', ",
        ),
        ("a.mp4 0\nmy b.mp4\n", r"line 2: no label in 'my b.mp4'"),
        ("a.mp4 0\n7\n", r"line 2: no label in '7'"),
        ("a.mp4 0\n,7\n", r"line 2: "),
        ('a.mp4 0\n"b.mp4 1\n', r"line 2: "),
        ("yoga/a.mp4\n", r"line 1: no label"),
        ("a.mp4 1.0\n", r"line 1: the label '1.0' is neither an integer nor a class name"),
        ("air drumming/a.mp4 yoga\n", r"line 1: the label 'yoga' is neither"),
        ("air drumming/a.mp4,yoga\n", r"line 1: the label 'yoga' is neither"),
        ("a.mp4 0\nb.mp4 7\n", r"line 2: label 7 is not in 0..4; MODEL.NUM_CLASSES is 5$"),
        ("a.mp4 1\nb.mp4 5\n", r"line 2: label 5 is not in 0..4; .* count from 1, as in UCF101"),
        ("a.mp4 -1\n", r"line 1: label -1 is not in 0..4; MODEL.NUM_CLASSES is 5$"),
        (f"a.mp4 {'0' * 30}1\n", r"line 1: label 0{30}1 is not in"),
        (f"a.mp4 {'9' * 5000}\n", r"line 1: label 9{60} is not in"),
        ("", r"train.csv: the list has no videos: it is empty"),
        ("\n \n", r"train.csv: the list has no videos: it is empty"),
        ("path,label\n", r"train.csv: the list has no videos: nothing but a header"),
        (b"a.mp4 0\nb\0.mp4 1\n", r"line 2: a NUL character"),
        (b"a.mp4 0\n\xff.mp4 1\n", r"line 2: not UTF-8"),
        ("a.mp4 0\nb.mp4 1\na.mp4 1\n", r"line 3: 'a.mp4' is in line 1 already"),
        ("a/b.mp4 0\n./a//b.mp4 0\n", r"line 2: .* is in line 1 already"),
        ("a 9 5 0\nb 1\na 9 5 1\n", r"line 3: 'a' is in line 1 already"),
        ("/a/b.mp4 0\n/a/c/../b.mp4 0\n", r"line 2: .* is in line 1 already"),
    ],
)
def test_bad_lists_name_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        rows(tmp_path, content, class_names=NAMES)
    assert str(caught.value).startswith(str(tmp_path / "train.csv"))
    assert len(str(caught.value).splitlines()) == 1


def test_parts_of_a_folder_are_videos_of_their_own(tmp_path: Path) -> None:
    found = read_list(write(tmp_path, "a 0 5 0\na 5 5 1\na 10 5 0\n"), 5)
    assert [(r.path, r.label, r.images) for r in found] == [
        ("a", label, Images(first, 5)) for first, label in ((0, 0), (5, 1), (10, 0))
    ]


def test_names_without_class_names(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"line 1: the label 'yoga' .*set DATA.CLASS_NAMES"):
        rows(tmp_path, "a.mp4 yoga\n")
    with pytest.raises(AnnotationError, match=r"line 1: no label .*DATA.CLASS_NAMES"):
        rows(tmp_path, "yoga/a.mp4\n")


def test_a_prefix_is_not_left(tmp_path: Path) -> None:
    content = "a.mp4 0\nb/../c..d.mp4 1\n..e/f.mp4 2\n"
    expected = [("/v/a.mp4", 0), ("/v/b/../c..d.mp4", 1), ("/v/..e/f.mp4", 2)]
    assert rows(tmp_path, content, prefix="/v") == expected
    for row in ("../a.mp4 0", "b/../../a.mp4 0", ".. 0"):
        with pytest.raises(AnnotationError, match=r"line 2: '.*' leaves DATA.PATH_PREFIX '/v'"):
            rows(tmp_path, f"a.mp4 0\n{row}\n", prefix="/v")
    with pytest.raises(AnnotationError, match=r"line 1: '/w/a.mp4' is absolute.*DATA.PATH_PREFIX"):
        rows(tmp_path, "/w/a.mp4 0\n", prefix="/v")


def test_records_know_their_lines(tmp_path: Path) -> None:
    records = read_list(write(tmp_path, "path label\n\na.mp4 0\n\nb.mp4 1\n"), 2)
    where = [records.where(i) for i in range(2)]
    assert where == [f"{tmp_path}/train.csv, line {line}" for line in (3, 5)]


def test_a_missing_list_names_the_path_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"train.csv: .*DATA.PATH_TO_DATA_DIR"):
        read_list(tmp_path / "train.csv", 3)
    with pytest.raises(AnnotationError, match="can't be read: Is a directory"):
        read_list(tmp_path, 3)


def test_kinetics_reads_csv_or_txt_as_configured(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 2
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)
    with pytest.raises(AnnotationError, match=r"val.csv: there is no such list"):
        build_dataset("kinetics", cfg, "val")
    (tmp_path / "val.txt").write_text("a.mp4 1\n")
    assert [tuple(r[:2]) for r in build_dataset("kinetics", cfg, "val").records] == [("a.mp4", 1)]
    (tmp_path / "classes").write_text("left\nright\n")
    cfg.DATA.CLASS_NAMES = str(tmp_path / "classes")
    cfg.DATA.PATH_PREFIX, cfg.DATA.PATH_LABEL_SEPARATOR, cfg.DATA.MULTI_LABEL = "v", "|", True
    (tmp_path / "val.csv").write_text("a.mp4|right,left\n")
    dataset = build_dataset("kinetics", cfg, "val")
    assert [tuple(r[:2]) for r in dataset.records] == [("v/a.mp4", (0, 1))]
    assert dataset.class_names == ("left", "right")


@pytest.mark.parametrize("row", ["a/b c.mp4{}3", '"a/b c.mp4"{}3', "a/b c.mp4 {} 3"])
@pytest.mark.parametrize("separator", [";", "|"])
def test_another_separator_is_seen(tmp_path: Path, row: str, separator: str) -> None:
    text = row.format(separator)
    with pytest.raises(AnnotationError, match=r"line 2: .* from the label 3: set DATA.PATH_LABEL"):
        rows(tmp_path, f"path{separator}label\n{text}\n")
    assert rows(tmp_path, text, separator=separator) == [("a/b c.mp4", 3)]


def test_the_first_bad_row_is_told_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("a.mp4 0\nb.mp4 1\n./a.mp4 1\nb.mp4 1\nc.mp4 9\n")
    with pytest.raises(AnnotationError, match=r"line 3: './a.mp4' is in line 1 already"):
        read_list(path, 2)
    path.write_text("a.mp4 0\nc.mp4 9\na.mp4 1\n")
    with pytest.raises(AnnotationError, match=r"line 2: label 9"):
        read_list(path, 2)
    path.write_text("f 1 9 0\nf 2 9 0\nf 1 9 1\n")
    with pytest.raises(AnnotationError, match=r"line 3: 'f' is in line 1 already"):
        read_list(path, 2)


def test_a_long_list_takes_little_memory_while_it_is_read(tmp_path: Path) -> None:
    """The bytes of its text twice, those of the records, and few more."""
    rows, path = 20_000, tmp_path / "train.csv"
    path.write_text("".join(f"class_{i % 9}/video_{i:09d}.mp4 {i % 9}\n" for i in range(rows)))
    read_list(path, 9)
    tracemalloc.start()
    try:
        records = read_list(path, 9)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(records) == rows
    assert peak < 2 * path.stat().st_size + 1.5 * records.nbytes
