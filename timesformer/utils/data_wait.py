"""How long a model waits for videos, of all ranks, without waiting for a GPU to find out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from timesformer.utils.distributed import gather_objects


class DataWait:
    """The time in which a model had nothing to do since its next videos weren't there.

    On a CPU that is the time that this process waits for them. A GPU may still be at work on the
    step before meanwhile: there it is the time between the end of that step and the begin of the
    next on the GPU, as far as this process waited in it. Two events in the GPU's stream tell, which
    are looked at when they have passed.

    A step begins everywhere when the last rank has its videos, so of each step the longest wait of
    all ranks counts.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.total = self.first = 0.0  # seconds, that all ranks have agreed on
        self._begun = False
        self._own: list[float] = []  # of this rank, one a step, that they have not
        self._passing: deque[tuple[float, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._of_gpu = device.type == "cuda"
        self._since, self._end = time.perf_counter(), self._event()

    def begin(self) -> None:
        """Note that a step is done, and what else there was: from now on videos are waited for."""
        self._since, self._end = time.perf_counter(), self._event()

    def over(self) -> float:
        """Note that a step's videos are there, and return the seconds that this process waited."""
        waited = time.perf_counter() - self._since
        if self._end is None:
            self._own.append(waited)
        else:
            start = self._event()
            assert start is not None
            self._passing.append((waited, self._end, start))
            while self._passing and self._passing[0][2].query():
                self._pass()
        return waited

    def agree(self) -> None:
        """Add what wasn't agreed on yet to `total` and `first`; all ranks call it together."""
        while self._passing:
            self._passing[0][2].synchronize()
            self._pass()
        steps = [max(waits) for waits in zip(*gather_objects(self._own), strict=True)]
        if steps and not self._begun:  # the first step, for which nothing was read ahead
            self.first += steps[0]
            self._begun = True
        self.total += sum(steps)
        self._own = []

    def to_json(self) -> dict[str, float]:
        """Return what `restore` needs; `agree` comes first."""
        return {"total": self.total, "first": self.first}

    def restore(self, said: Mapping[str, Any]) -> None:
        """Go on from what a former run has measured of this epoch."""
        self.total, self.first = float(said["total"]), float(said["first"])

    def _event(self) -> torch.cuda.Event | None:
        if not self._of_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _pass(self) -> None:
        waited, end, start = self._passing.popleft()
        self._own.append(min(waited, end.elapsed_time(start) / 1e3))
