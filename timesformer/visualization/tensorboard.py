"""Scalars for TensorBoard, from rank 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from timesformer.utils.distributed import is_main
from timesformer.utils.files import make_folder


class TensorboardWriter:
    """Writes scalars to `log_dir`; does nothing on other ranks."""

    def __init__(self, log_dir: str) -> None:
        """Start a file of events.

        Raises:
            UserError: in the main process, its folder can't be made or written to.
        """
        self._writer = None
        if is_main():
            make_folder(Path(log_dir))
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir)

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending."""
        if self._writer:
            self._writer.close()
