"""Which epochs leave something out of clips, by TRAIN.TUBE_KEEP or TRAIN.MULTIGRID."""

from __future__ import annotations

import math

from timesformer.config.node import CfgNode

SHARE_OF_FULL = 0.25  # of the epochs, for TRAIN.FULL_EPOCHS -1


def reduced_epochs(cfg: CfgNode) -> int:
    """Return the number of first epochs that leave something out; the rest sees whole clips.

    Args:
        cfg: reads TRAIN.TUBE_KEEP, TRAIN.MULTIGRID, TRAIN.FULL_EPOCHS and SOLVER.MAX_EPOCH.
    """
    if cfg.TRAIN.TUBE_KEEP == 1 and cfg.TRAIN.MULTIGRID == "none":
        return 0
    epochs, full = cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.FULL_EPOCHS
    if full < 0:
        full = min(math.ceil(SHARE_OF_FULL * epochs), epochs - 1)
    return max(epochs - full, 0)
