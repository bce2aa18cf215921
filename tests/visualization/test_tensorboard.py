"""Curves for TensorBoard: what is written, and where they can't be."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

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


def test_a_disk_that_is_full_for_a_while_costs_its_points_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    real, said = Path.open, []

    def small(path: Path, *args: Any, **kwargs: Any) -> Any:
        return Small(path, "ab") if "tfevents" in path.name else real(path, *args, **kwargs)

    class Small(io.FileIO):
        """A file on a disk that takes a bit of what is written."""

        def write(self, data: Any) -> int:
            if step != 2:
                return super().write(data)
            if said:
                raise OSError(errno.ENOSPC, "No space left on device")
            said.append(super().write(bytes(data)[:5]))
            return 5

    monkeypatch.setattr(Path, "open", small)
    writer = TensorboardWriter(str(tmp_path))
    for step in range(5):
        writer.add_scalars({"train/loss": float(step)}, step)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [
        (step, float(step)) for step in (0, 1, 3, 4)
    ]
    assert caplog.text.count("can't be written: No space left on device; the run goes on") == 1
