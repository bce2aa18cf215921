from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.lists.records import Images, Record, Records
from timesformer.datasets.lists.text_file import read_text
from timesformer.utils.errors import AnnotationError, ConfigError


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


def test_records_come_back_as_they_were() -> None:
    records = Records("train.csv")
    records.append("a b/é.mp4", 3, line=2)
    records.append("not utf-8 \udcff.mp4", 0, line=7, start=5, end=9)
    records.append("", 1)
    records.append("a", 1, images=Images(0, 1))
    records.append("a\udcff", 1, images=Images(999_999_999, 999_999_999, "é_999999999.jpg"))
    records.append("a", 1, images=Images(0, 5, "0.jpg"))
    expected = [
        Record("a b/é.mp4", 3),
        Record("not utf-8 \udcff.mp4", 0, 5, 9),
        Record("", 1),
        Record("a", 1, images=Images(0, 1)),
        Record("a\udcff", 1, images=Images(999_999_999, 999_999_999, "é_999999999.jpg")),
        Record("a", 1, images=Images(0, 5, "0.jpg")),
    ]
    assert list(records) == expected
    assert records[1:] == expected[1:]
    assert (records[-1], len(records)) == (expected[-1], 6)
    assert [records.where(i) for i in range(3)] == [
        "train.csv, line 2",
        "train.csv, line 7",
        "train.csv",
    ]
    with pytest.raises(IndexError, match="record 6 of 6"):
        records[6]


def test_records_with_several_labels() -> None:
    records = Records(multi_label=True)
    for labels in ((3, 17), (), (5,)):
        records.append("v.mp4", labels)
    assert [record.label for record in records] == [(3, 17), (), (5,)]
    assert records.classes == {3, 5, 17}


def test_records_are_small() -> None:
    records, path = Records(), "videos/" + "x" * 33 + ".mp4"
    for i in range(1000):
        records.append(path, i % 400, line=i + 1)
    assert records.nbytes <= 1000 * (len(path) + 25)


def test_texts_that_cannot_be_read_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert read_text(path) == "one\ntwo"
    path.write_bytes(b"one\ntw\0o")
    with pytest.raises(AnnotationError, match=r"train.csv, line 2: a NUL"):
        read_text(path)
    path.write_bytes(b"one\ntwo\n\xff")
    with pytest.raises(AnnotationError, match=r"train.csv, line 3: not UTF-8"):
        read_text(path)
    with pytest.raises(AnnotationError, match=r"DATA\.PATH_TO_DATA_DIR must be the folder"):
        read_text(tmp_path / "absent.csv")
