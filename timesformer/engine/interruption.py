"""What cuts an epoch short, or saves within it: signals, and TRAIN.CHECKPOINT_STEPS and _MINUTES.

Ranks must do either after the same step. So each says in the reduction that a step makes anyway
what it wishes, and all do what any of them wished.
"""

from __future__ import annotations

import math
import time

from fvcore.common.config import CfgNode

from timesformer.utils.distributed import is_main
from timesformer.utils.stopping import asked


class Interruption:
    """Knows when a run is to save within an epoch, and when it is to stop.

    Args:
        cfg: reads TRAIN.CHECKPOINT_STEPS and TRAIN.CHECKPOINT_MINUTES.

    Attributes:
        due: whether the run is to be saved, within the epoch or at its end.
        stopping: whether it is to stop then.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.every = cfg.TRAIN.CHECKPOINT_STEPS
        self.seconds = 60 * cfg.TRAIN.CHECKPOINT_MINUTES
        self.steps = 0  # since the last checkpoint
        self.saved_at = time.monotonic()
        self.again_at = math.inf
        self.stopping = False
        self.due = False

    def wishes(self) -> list[float]:
        """Return what this rank wishes after the step under way: to stop, to save; 1 or 0."""
        # One clock decides: those of others would wish it a step earlier or later.
        now = time.monotonic()
        late = 0 < self.seconds <= now - self.saved_at or now >= self.again_at
        return [float(bool(asked())), float(is_main() and late)]

    def agreed(self, stop: float, save: float) -> bool:
        """Take the sums of all ranks' wishes; return whether to save.

        Args:
            stop: ranks that wish to stop.
            save: ranks that wish to save.
        """
        self.steps += 1
        self.stopping = self.stopping or stop > 0
        self.due = self.stopping or save > 0 or 0 < self.every <= self.steps
        return self.due

    def saved(self) -> None:
        """Note that the run's state is on its way to the disk."""
        self.steps, self.saved_at, self.due = 0, time.monotonic(), False
        self.again_at = math.inf

    def save_again(self, seconds: float) -> None:
        """Note that it couldn't be written, and is to be saved after so many seconds."""
        self.again_at = time.monotonic() + seconds
