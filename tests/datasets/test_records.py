from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.records import read_class_names
from timesformer.utils.errors import ConfigError


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
