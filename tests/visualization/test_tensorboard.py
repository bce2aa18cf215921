"""Curves for TensorBoard: what is written, and where they can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.utils.errors import UserError
from timesformer.visualization.tensorboard import TensorboardWriter


@pytest.mark.parametrize("place", ["file", "file/x", "x" * 300, "/proc/x/y"])
def test_a_folder_that_cannot_be_is_one_line(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"can't make this folder|is there and is no folder"):
        TensorboardWriter(str(tmp_path / place))


def test_points_go_into_one_file_of_events(tmp_path: Path) -> None:
    writer = TensorboardWriter(str(tmp_path / "new" / "curves"))
    writer.add_scalars({"loss": 1.0}, 0)
    writer.close()
    (events,) = (tmp_path / "new" / "curves").iterdir()
    assert events.name.startswith("events.out.tfevents")
