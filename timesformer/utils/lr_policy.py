"""Learning rate as a function of the fractional epoch; it is set before every step."""

from __future__ import annotations

import bisect
import math

from fvcore.common.config import CfgNode


def get_lr_at_epoch(cfg: CfgNode, epoch: float) -> float:
    """Learning rate at a fractional epoch, warm-up included.

    Warm-up is linear from SOLVER.WARMUP_START_LR to the policy's value at SOLVER.WARMUP_EPOCHS.
    """
    solver = cfg.SOLVER
    if epoch >= solver.WARMUP_EPOCHS:
        return _policy(solver, epoch)
    goal = _policy(solver, solver.WARMUP_EPOCHS)
    return solver.WARMUP_START_LR + (goal - solver.WARMUP_START_LR) * epoch / solver.WARMUP_EPOCHS


def _policy(solver: CfgNode, epoch: float) -> float:
    if solver.LR_POLICY == "cosine":
        share = (1.0 + math.cos(math.pi * epoch / solver.MAX_EPOCH)) / 2.0
        return solver.COSINE_END_LR + (solver.BASE_LR - solver.COSINE_END_LR) * share
    # steps_with_relative_lrs: LRS[i] × BASE_LR from epoch STEPS[i] on; STEPS[0] is 0
    return solver.BASE_LR * solver.LRS[bisect.bisect_right(solver.STEPS, epoch) - 1]
