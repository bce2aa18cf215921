"""What TRAIN.MULTIGRID changes in training: the learning rate; whether a model takes its clips."""

from __future__ import annotations

from itertools import groupby

import torch
from fvcore.common.config import CfgNode

from timesformer.config.layout import BatchLayout
from timesformer.config.multigrid import Grid, Step, Steps, grids, grids_of_epoch
from timesformer.models.build import meta_model
from timesformer.utils.errors import ConfigError
from timesformer.utils.lr_policy import get_lr_at_epoch
from timesformer.utils.text import counted


def lr_of(steps: Steps, epoch: int, step: Step) -> float:
    """Return the learning rate of a step of an epoch (from 0), in proportion to its clips."""
    return get_lr_at_epoch(steps.cfg, epoch + steps.progress(step)) * step.size


def check_model(cfg: CfgNode) -> None:
    """Make sure that the model takes the clips of all grids.

    Raises:
        ConfigError: it doesn't, with the reason.
    """
    reduced = grids(cfg)[1:]
    model = meta_model(cfg).eval() if reduced else None
    for every, side, _ in reduced:
        frames = cfg.DATA.NUM_FRAMES // every
        try:
            assert model is not None
            model(torch.empty(1, 3, frames, side, side, device="meta"))
        except (ValueError, RuntimeError) as error:
            why = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"TRAIN.MULTIGRID {cfg.TRAIN.MULTIGRID}: {cfg.MODEL.MODEL_NAME} doesn't take clips "
                f"of {frames} × {side}×{side} ({why}): set it to none"
            ) from error


def in_words(steps: Steps, layout: BatchLayout) -> list[str]:
    """Say which epochs have which clips, a line for each phase; [] without TRAIN.MULTIGRID."""
    cfg = steps.cfg
    if cfg.TRAIN.MULTIGRID == "none":
        return []
    lines, first = [], 1
    for turn, epochs in groupby(range(cfg.SOLVER.MAX_EPOCH), lambda e: grids_of_epoch(cfg, e)):
        phase = list(epochs)
        end = first + len(phase) - 1
        when = f"epochs {first} to {end}" if end > first else f"epoch {end}"
        count = counted(steps.count(phase[0]), "step") + (" each" if end > first else "")
        clips = ", then ".join(_clips_in_words(cfg, grid, layout) for grid in turn)
        lines.append(f"{when}, {count}: {clips}")
        first = end + 1
    return lines


def _clips_in_words(cfg: CfgNode, grid: Grid, layout: BatchLayout) -> str:
    factor = grid.clips if cfg.TRAIN.MULTIGRID_BATCH else 1
    rate = f", learning rate × {factor}" if factor > 1 else ""
    frames = cfg.DATA.NUM_FRAMES // grid.every
    return f"{layout.global_batch * factor} clips of {frames} × {grid.side}×{grid.side}{rate}"
