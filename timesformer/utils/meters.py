"""Running statistics of an epoch, as sums and counts that are divided once."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from timesformer.utils.data_wait import DataWait


class _Window:
    """Sums over some steps: loss, clips wrong at top-1, at top-5, clips; and seconds.

    Steps that were left out have taken time, and no clips.
    """

    def __init__(self) -> None:
        self.sums = [0.0] * 4
        self.seconds = self.data_seconds = 0.0
        self.steps = self.left_out = 0

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"sums": list(self.sums)}

    def restore(self, said: Mapping[str, Any]) -> None:
        self.sums = [float(x) for x in said["sums"]]
        self.seconds, self.data_seconds = float(said["seconds"]), float(said["data_seconds"])
        self.steps, self.left_out = int(said["steps"]), int(said["left_out"])

    def seconds_per_step(self) -> float:
        return self.seconds / max(self.steps, 1)

    def times(self) -> dict[str, float]:
        dt_data = self.data_seconds / max(self.steps, 1)
        return {"dt": self.seconds_per_step(), "dt_data": dt_data}

    def means(self) -> dict[str, float]:
        loss, top1, top5, clips = self.sums
        clips = clips or math.nan  # every step was left out
        return {
            "loss": loss / clips,
            "top1_err": 100 * top1 / clips,
            "top5_err": 100 * top5 / clips,
        }


class TrainMeter:
    """Times and errors of one training epoch.

    Call `wait` before the data of a step is asked for, `data_ready` when it has arrived and
    `update` when the step is done.

    Args:
        epoch: from 0.
        max_epoch: epochs of the run, for the estimate of the time left.
        steps: optimizer steps of this epoch.
        device: of the model.
        later: steps of the epochs after it; as many in each as in this one when None.
    """

    def __init__(
        self,
        epoch: int,
        max_epoch: int,
        steps: int,
        device: torch.device | None = None,
        later: int | None = None,
    ) -> None:
        self.epoch = epoch
        self.max_epoch = max_epoch
        self.steps = steps
        self.later = steps * (max_epoch - epoch - 1) if later is None else later
        self.lr = 0.0
        self._all = _Window()
        self._recent = _Window()  # since the last iter_stats
        self._start = self._last = time.perf_counter()
        self._wait = DataWait(device or torch.device("cpu"))

    def to_json(self) -> dict[str, Any]:
        """Return what `restore` needs to go on within the epoch; all ranks call it together."""
        self._wait.agree()
        seconds = time.perf_counter() - self._start
        return {
            "epoch": self._all.to_json() | {"wall_seconds": seconds},
            "recent": self._recent.to_json(),
            "data_wait": self._wait.to_json(),
        }

    def restore(self, said: Mapping[str, Any]) -> None:
        """Go on from what a former run has measured of this epoch.

        Raises:
            ValueError, TypeError, KeyError: it isn't what `to_json` returns.
        """
        self._all.restore(said["epoch"])
        self._recent.restore(said["recent"])
        # Checkpoints of before had what the main process waited alone.
        alone = {"total": said["epoch"]["data_seconds"], "first": 0.0}
        self._wait.restore(said.get("data_wait", alone))
        self._start -= float(said["epoch"]["wall_seconds"])

    def wait(self) -> None:
        """Note that the data of the next step is asked for."""
        self._wait.begin()

    def data_ready(self) -> None:
        """Note that it has arrived."""
        waited = self._wait.over()
        for window in (self._all, self._recent):
            window.data_seconds += waited

    def update(self, sums: Sequence[float], lr: float, *, left_out: bool = False) -> None:
        """Note that a step is done.

        Args:
            sums: over all ranks: summed loss, clips wrong at top-1, at top-5, number of clips.
            lr: learning rate of the step.
            left_out: whether the step was left out, since something in it was not finite.
        """
        self.lr = lr
        now = time.perf_counter()
        for window in (self._all, self._recent):
            window.sums = [a + b for a, b in zip(window.sums, sums, strict=True)]
            window.seconds += now - self._last
            window.steps += 1
            window.left_out += left_out
        self._last = now

    def iter_stats(self, step: int) -> dict[str, Any]:
        """Statistics since the last call; dt is seconds a step, dt_data its wait for data.

        Args:
            step: index of the last step, from 0.
        """
        recent, self._recent = self._recent, _Window()
        return {
            "split": "train_iter",
            "epoch": f"{self.epoch + 1}/{self.max_epoch}",
            "iter": f"{step + 1}/{self.steps}",
            **self._stats(recent),
        }

    def epoch_stats(self) -> dict[str, Any]:
        """Statistics of the whole epoch; all ranks call it together.

        step_seconds is the time of its steps with their waits, data_wait the share of it in which
        the model waited for data (see `DataWait`), data_wait_first the seconds for the first step,
        or where a run went on, of these.
        """
        self._wait.agree()
        seconds = self._all.seconds
        return {
            "split": "train_epoch",
            "epoch": f"{self.epoch + 1}/{self.max_epoch}",
            "seconds": time.perf_counter() - self._start,
            **self._stats(self._all),
            "step_seconds": seconds,
            "clips_per_s": self._all.sums[3] / seconds if seconds else 0.0,
            "data_wait": min(1.0, self._wait.total / seconds) if seconds else 0.0,
            "data_wait_first": self._wait.first,
            "skipped_steps": self._all.left_out,
        }

    def _stats(self, window: _Window) -> dict[str, Any]:
        steps_left = self.steps + self.later - self._all.steps
        return {
            **window.times(),
            "eta": hours_minutes_seconds(self._all.seconds_per_step() * steps_left),
            **window.means(),
            "lr": self.lr,
            "mem": memory_gib(),
        }


def hours_minutes_seconds(seconds: float) -> str:
    """Return a duration as h:mm:ss; hours aren't folded into days."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def memory_gib() -> float:
    """Most GPU memory ever held by this process in GiB; 0 on the CPU."""
    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.max_memory_allocated() / 2**30
