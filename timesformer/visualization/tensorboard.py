"""Scalars for TensorBoard, from rank 0."""

from __future__ import annotations

from collections.abc import Mapping

from timesformer.utils.distributed import is_main


class TensorboardWriter:
    """Writes scalars to `log_dir`; does nothing on other ranks."""

    def __init__(self, log_dir: str) -> None:
        self._writer = None
        if is_main():
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
