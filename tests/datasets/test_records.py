from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.records import Record, read_class_names, read_list
from timesformer.utils.errors import AnnotationError, ConfigError


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "separator", "expected"),
    [
        ("a.mp4 0\nb/c.mp4 2\n", " ", [("a.mp4", 0), ("b/c.mp4", 2)]),
        ("my video.mp4 1\n\n  \nb.mp4  2", " ", [("my video.mp4", 1), ("b.mp4", 2)]),
        ("\ufeffa.mp4 0\r\nvidéo.mp4 1\r\n", " ", [("a.mp4", 0), ("vidéo.mp4", 1)]),
        ("a,b.mp4, 1\n", ",", [("a,b.mp4", 1)]),
        ("a b.mp4\t2\n", "\t", [("a b.mp4", 2)]),
        ("a.mp4::1\n", "::", [("a.mp4", 1)]),
        ("one\u2028line.mp4 1\n", " ", [("one\u2028line.mp4", 1)]),
    ],
)
def test_rows(tmp_path: Path, content: str, separator: str, expected: list) -> None:
    assert read_list(write(tmp_path, content), 3, separator) == [Record(*row) for row in expected]


def test_prefix(tmp_path: Path) -> None:
    path = write(tmp_path, "a.mp4 0\n/b.mp4 1\n")
    assert [r.path for r in read_list(path, 2, prefix="/videos")] == ["/videos/a.mp4", "/b.mp4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 0\n\nb.mp4\n", r"train.csv, line 3: no label in 'b.mp4'"),
        ("a.mp4 0\n7\n", r"line 2: no label"),
        ("a.mp4 yoga\n", r"line 1: the label 'yoga' is not an integer"),
        ("a.mp4 1.0\n", r"line 1: the label '1.0' is not an integer"),
        ("a.mp4 0\nb.mp4 3\n", r"line 2: label 3 is not in 0..2; MODEL.NUM_CLASSES is 3"),
        ("a.mp4 -1\n", r"line 1: label -1 is not in 0..2"),
        ("", r"train.csv: the list has no videos"),
        ("\n \n", r"train.csv: the list has no videos"),
        (b"a.mp4 0\nb\0.mp4 1\n", r"line 2: a NUL character"),
        (b"a.mp4 0\n\xff.mp4 1\n", r"line 2: not UTF-8"),
    ],
)
def test_bad_lists_name_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_list(write(tmp_path, content), 3)


def test_a_missing_list_names_the_path_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"train.csv: .*DATA.PATH_TO_DATA_DIR"):
        read_list(tmp_path / "train.csv", 3)
    with pytest.raises(AnnotationError, match="can't be read: Is a directory"):
        read_list(tmp_path, 3)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("kinetics400", 400, "abseiling", "zumba"),
        ("kinetics600", 600, "abseiling", "zumba"),
        (
            "ssv2",
            174,
            "Approaching something with your camera",
            "Wiping something off of something",
        ),
        ("diving48", 48, "Back+15som+05Twis+FREE", None),
    ],
)
def test_shipped_class_names(name: str, count: int, first: str, last: str | None) -> None:
    names = read_class_names(name, count)
    assert len(set(names)) == count
    assert names[0] == first
    assert last in (None, names[-1])


def test_own_class_names(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("left\nright\n\n")
    assert read_class_names(str(path), 2) == ("left", "right")
    assert read_class_names("", 2) == ()
    with pytest.raises(ConfigError, match=r"has 2 names, but MODEL.NUM_CLASSES is 3"):
        read_class_names(str(path), 3)
    with pytest.raises(ConfigError, match=r"'kinetics' is neither a file .*kinetics400"):
        read_class_names("kinetics", 400)
