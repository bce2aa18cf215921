"""Running statistics of an epoch, as sums and counts that are divided once."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from typing import Any

import torch


class TrainMeter:
    """Times and errors of one training epoch.

    Call `data_ready` when a batch has arrived and `update` when its step is done.

    Args:
        epoch: from 0.
        max_epoch: epochs of the run, for the estimate of the time left.
        steps: steps of this epoch.
    """

    def __init__(self, epoch: int, max_epoch: int, steps: int) -> None:
        self.epoch = epoch
        self.max_epoch = max_epoch
        self.steps = steps
        self.lr = 0.0
        self._epoch_sums = [0.0] * 4  # loss, wrong at top-1, wrong at top-5, clips
        self._recent_sums = [0.0] * 4  # the same since the last iter_stats
        self._start = self._last = time.perf_counter()
        self._data_seconds = self._recent_data = self._recent_seconds = 0.0
        self._done = self._recent_steps = 0

    def data_ready(self) -> None:
        """A batch has arrived: the time since the last step was spent waiting for data."""
        waited = time.perf_counter() - self._last
        self._data_seconds += waited
        self._recent_data += waited

    def update(self, sums: Sequence[float], lr: float) -> None:
        """A step is done.

        Args:
            sums: over all ranks: summed loss, clips wrong at top-1, at top-5, number of clips.
            lr: learning rate of the step.
        """
        self.lr = lr
        self._epoch_sums = [a + b for a, b in zip(self._epoch_sums, sums, strict=True)]
        self._recent_sums = [a + b for a, b in zip(self._recent_sums, sums, strict=True)]
        now = time.perf_counter()
        self._recent_seconds += now - self._last
        self._last = now
        self._done += 1
        self._recent_steps += 1

    def iter_stats(self, step: int) -> dict[str, Any]:
        """Statistics since the last call: seconds a step (dt), of these waiting for data."""
        steps = max(1, self._recent_steps)
        seconds_per_step = (self._last - self._start) / max(1, self._done)
        left = self.steps * (self.max_epoch - self.epoch) - self._done
        stats = {
            "split": "train_iter",
            "epoch": f"{self.epoch + 1}/{self.max_epoch}",
            "iter": f"{step + 1}/{self.steps}",
            "dt": self._recent_seconds / steps,
            "dt_data": self._recent_data / steps,
            "eta": str(datetime.timedelta(seconds=int(seconds_per_step * left))),
            **_means(self._recent_sums),
            "lr": self.lr,
            "mem": memory_gib(),
        }
        self._recent_sums = [0.0] * 4
        self._recent_seconds = self._recent_data = 0.0
        self._recent_steps = 0
        return stats

    def epoch_stats(self) -> dict[str, Any]:
        """Statistics of the whole epoch."""
        return {
            "split": "train_epoch",
            "epoch": f"{self.epoch + 1}/{self.max_epoch}",
            "seconds": time.perf_counter() - self._start,
            "seconds_data": self._data_seconds,
            **_means(self._epoch_sums),
            "lr": self.lr,
            "mem": memory_gib(),
        }


def _means(sums: Sequence[float]) -> dict[str, float]:
    loss, top1, top5, clips = sums
    clips = max(clips, 1.0)
    return {"loss": loss / clips, "top1_err": 100 * top1 / clips, "top5_err": 100 * top5 / clips}


def memory_gib() -> float:
    """Most GPU memory ever held by this process in GiB; 0 on the CPU."""
    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.max_memory_allocated() / 2**30
