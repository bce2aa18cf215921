from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.lists.consistency import doubts
from timesformer.datasets.lists.json_entries import read_json
from timesformer.datasets.lists.records import Record, Records
from timesformer.datasets.lists.rows import read_list
from timesformer.utils.errors import AnnotationError, ConfigError

NAMES = ("Archery", "Apply Eye Makeup", "Yo Yo")


def test_labels_that_count_from_one() -> None:
    """The last class is absent, so no label is out of range."""
    records = [Record("Archery/a.mp4", 1), Record("v/ApplyEyeMakeup/b.mp4", 2)]
    folder, absent = doubts(records, 3, NAMES)
    assert "2 of 2 videos" in folder
    assert "(the first: Archery/a.mp4 has label 1, Apply Eye Makeup)" in folder
    assert "count from 1" in folder
    assert absent == "classes without a video, 1: Archery; if labels count from 1, subtract 1"


def test_one_wrong_label_is_no_shift() -> None:
    records = [Record("Archery/a.mp4", 0), Record("Yo_Yo/b.mp4", 1), Record("Yo_Yo/c.mp4", 2)]
    (line,) = doubts(records, 3, NAMES)
    assert line.startswith("1 of 3 videos")
    assert "count from 1" not in line


def test_nothing_is_doubtful() -> None:
    records = [Record("Archery/a.mp4", 0), Record("other/b.mp4", 1), Record("c.mp4", 2)]
    assert doubts(records, 3, NAMES) == []
    assert doubts(records, 3, ()) == []
    assert doubts([Record("a.mp4", (0, 2)), Record("b.mp4", (1,))], 3, NAMES) == []


def test_a_list_in_buffers_and_one_of_records_are_doubted_alike() -> None:
    records = Records()
    for path, label in (("v/Archery/a.mp4", 1), ("Yo_Yo/b.mp4", 2), ("c.mp4", 2)):
        records.append(path, label)
    assert doubts(records, 4, (*NAMES, "Diving")) == doubts(list(records), 4, (*NAMES, "Diving"))
    assert doubts(records, 4, ()) == ["classes without a video, 2: 0, 3"]


def test_names_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("a\nb\na\n")
    with pytest.raises(ConfigError, match=r"'a' is in lines 1 and 3"):
        read_class_names(str(path), 3)
    path.write_text("a\n\nb\n")
    with pytest.raises(ConfigError, match=r"names\.txt', line 2: no name"):
        read_class_names(str(path), 3)


def test_names_from_a_fifo(tmp_path: Path, make_fifo: Callable[[Path], None]) -> None:
    make_fifo(tmp_path / "names.txt")
    with pytest.raises(AnnotationError, match="not a regular file"):
        read_class_names(str(tmp_path / "names.txt"), 3)


def test_a_json_key_given_twice(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 1, "id": 2}]')
    with pytest.raises(AnnotationError, match=r"a\.json: the key 'id' is given twice"):
        read_json(tmp_path / "a.json")


def test_a_forgotten_folder_names_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnnotationError, match=r"DATA\.PATH_TO_DATA_DIR is empty"):
        read_list("train.csv", 3)
    (tmp_path / "data" / "archery").mkdir(parents=True)
    with pytest.raises(AnnotationError, match="to videofolder"):
        read_list(tmp_path / "data" / "train.csv", 3)
