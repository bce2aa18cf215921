"""Scalars for TensorBoard, from rank 0."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer.utils.distributed import is_main
from timesformer.utils.files import make_folder
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)


class TensorboardWriter:
    """Writes scalars to `log_dir`; does nothing on other ranks.

    Curves are an extra: where they can't be written for a while, this is told once, and their
    points of that time are missing. torch's SummaryWriter would end the run.
    """

    def __init__(self, log_dir: str) -> None:
        """Start a file of events.

        Raises:
            UserError: in the main process, its folder can't be made or written to.
        """
        self._path: Path | None = None
        self._file: io.FileIO | None = None
        self._told = False
        if is_main():
            folder = make_folder(Path(log_dir))
            name = f"events.out.tfevents.{time.time():010.0f}.{platform.node()}.{os.getpid()}"
            self._path = folder / f"{name}.{time.perf_counter_ns()}"

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve."""
        if not self._path:
            return
        # Its import takes a second, and most runs have no use for it.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=points))
        first = Event(wall_time=event.wall_time, file_version="brain.Event:2")
        try:
            self._file = self._file or self._path.open("ab", buffering=0)
            _append(self._file, [event] if self._file.seek(0, os.SEEK_END) else [first, event])
        except OSError as error:
            if not self._told:
                self._told = True
                logger.warning(
                    "%s: the curves for TensorBoard can't be written: %s; the run goes on",
                    *(self._path.parent, error.strerror),
                )

    def close(self) -> None:
        """Close the file; nothing is pending."""
        if self._file:
            self._file.close()


def _append(file: io.FileIO, events: Sequence[Any]) -> None:
    """Write all of some events or, where the disk is full, nothing: readers stop at half of one.

    Raises:
        OSError: they can't be written.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    for event in events:
        RecordWriter(records).write(event.SerializeToString())
    before = file.seek(0, os.SEEK_END)
    try:
        # A disk that is full in the midst of it takes a part, and says so at the next attempt.
        left = records.getbuffer()
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(before)
        raise
