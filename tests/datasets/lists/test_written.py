"""Lists that are written are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.lists.frame_rows import read_frame_list
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.lists.written import list_path, write_frame_list, write_list
from timesformer.utils.errors import AnnotationError


@pytest.mark.parametrize("separator", [" ", ",", "\t", "::"])
@pytest.mark.parametrize("multi", [False, True])
def test_lists_are_read_back(tmp_path: Path, separator: str, multi: bool) -> None:
    labels = [(3,), (0, 12)] if multi else [3, 12]
    paths = ["my videos/a, b 5.mp4", "x::y/c.mp4"]
    written = [Record(path, label) for path, label in zip(paths, labels, strict=True)]
    write_list(tmp_path / "train.csv", written, separator, multi)
    records = read_list(tmp_path / "train.csv", 13, separator=separator, multi_label=multi)
    assert [(record.path, record.label) for record in records] == list(
        zip(paths, labels, strict=True)
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_paths_are_written_as_they_were_read() -> None:
    assert list_path("/data/a.mp4", "") == "/data/a.mp4"
    assert list_path("/data/x/a.mp4", "/data/") == "x/a.mp4"


@pytest.mark.parametrize("separator", [" ", ",", "\t", "::", "|"])
def test_names_that_could_be_parted_are_read_back(tmp_path: Path, separator: str) -> None:
    """Without quotes "frames/abc 3" and its label 17 would be three fields, or two labels."""
    paths = ["frames/abc 3", "take 1,2", "a|b", ' "x" ', "1,a.mp4", "a.mp4 drumming", "x;3", "a:"]
    written = [Record(path, 17) for path in paths] + [
        Record("frames/c", 1, images=Images(5, 7)),
        Record("frames/d 1", 1, images=Images(0, 7)),
    ]
    parts = [Record("f/a.b", 1, images=Images(first, 9)) for first in (0, 12)]
    for records in (written, [Record("e.mp4", 1, images=Images(0, 7))], parts):
        write_list(tmp_path / "train.csv", records, separator, multi_label=False)
        assert list(read_list(tmp_path / "train.csv", 18, separator=separator)) == records


def test_parts_are_written_as_images(tmp_path: Path) -> None:
    records = [Record("frames/c", 1, 5, 12), Record("a.mp4", 1, 5, 12)]
    write_list(tmp_path / "train.csv", records, " ", multi_label=False)
    found = [record.images for record in read_list(tmp_path / "train.csv", 18)]
    assert found == [(5, 7, ""), None]


@pytest.mark.parametrize("first", [0, 1, 3])
def test_images_by_their_names_are_read_back(tmp_path: Path, first: int) -> None:
    """Whatever number the folder's images begin with, and whatever lies beside them."""
    records = [
        Record(str(tmp_path / "a" / folder), 2, images=Images(first, 4, f"img_{first:03d}.jpg"))
        for folder in ("v", "more/w")
    ]
    rows = [record._replace(path=list_path(record.path, str(tmp_path))) for record in records]
    write_frame_list(tmp_path / "val.csv", rows)
    assert list(read_frame_list(tmp_path / "val.csv", 3, tmp_path)) == records
    with pytest.raises(AnnotationError, match=r"'my v': a frame list can't have blanks"):
        write_frame_list(tmp_path / "val.csv", [rows[0]._replace(path="my v")])


def test_a_name_with_a_line_break(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"'a\\n 1.mp4': a list can't have such a name"):
        write_list(tmp_path / "train.csv", [Record("a\n 1.mp4", 1)], " ", multi_label=False)
    assert not list(tmp_path.iterdir())
