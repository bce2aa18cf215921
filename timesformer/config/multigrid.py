"""TRAIN.MULTIGRID: shorter and smaller clips in larger batches for most of a training.

After "A Multigrid Method for Efficiently Training Video Models" (Wu et al. 2020, arXiv 1912.00998).
A long cycle goes from epoch to epoch through four grids, each for the same number of steps; a short
cycle goes from step to step through three sizes. A grid that has f times fewer pixels has about f
times the clips in a step, at f times the learning rate. The clips of an epoch are those of the
plain recipe, to the last one.

A coarser grid here spans what the full one does, in time and in space: every n-th of the same
frames, and the same crop with fewer pixels. The paper also draws the span; but positions of a
transformer are resized with the grid, which is right where that spans the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from timesformer.config.fewer_tokens import reduced_epochs
from timesformer.config.node import CfgNode
from timesformer.utils.errors import ConfigError

HALF_AREA = math.sqrt(0.5)
# Of the long cycle (paper, Table 1): clips, a frame in so many, side over the full one.
LONG = ((8, 4, HALF_AREA), (4, 2, HALF_AREA), (2, 2, 1.0), (1, 1, 1.0))
SHORT = (0.5, HALF_AREA, 1.0)  # sides of the short cycle, over the full one


class Grid(NamedTuple):
    """How clips are sampled in time and space.

    Attributes:
        every: of the full clip's frames, the first of so many is taken.
        side: of the square crop in pixels.
        clips: times as many in a step as of full clips.
    """

    every: int
    side: int
    clips: int


class Step(NamedTuple):
    """One optimizer step of an epoch; its passes are alike.

    Attributes:
        before: batches of TRAIN.BATCH_SIZE of the epoch that come before it.
        size: of these that make a forward pass.
        passes: forward passes of each process.
        grid: number of the clips' grid, in `grids`.
    """

    before: int
    size: int
    passes: int
    grid: int


def grids(cfg: CfgNode) -> list[Grid]:
    """Return the grids that a training has, the full one first.

    Raises:
        ConfigError: clips are too short or too small for it.
    """
    full = Grid(1, cfg.DATA.TRAIN_CROP_SIZE, 1)
    return list(dict.fromkeys([full, *chain(*_stages(cfg))]))


def grids_of_epoch(cfg: CfgNode, epoch: int) -> list[Grid]:
    """Return the grids that the steps of an epoch (from 0) have in turn.

    Raises:
        ConfigError: as `grids`.
    """
    until = reduced_epochs(cfg) if cfg.TRAIN.MULTIGRID != "none" else 0
    if epoch >= until:
        return [Grid(1, cfg.DATA.TRAIN_CROP_SIZE, 1)]
    stages = _stages(cfg)
    if len(stages) == 1:
        return stages[0]
    # All grids of a cycle have as many steps, so an epoch of f times the clips counts f times.
    place = (epoch + 0.5) * cfg.TRAIN.MULTIGRID_CYCLES / until % 1
    weights = [clips for clips, _, _ in LONG]
    ends = [sum(weights[: i + 1]) / sum(weights) for i in range(len(weights))]
    return stages[next(i for i, end in enumerate(ends) if place < end)]


def _stages(cfg: CfgNode) -> list[list[Grid]]:
    """Return for each stage of the long cycle the grids that the short one goes through."""
    kind = cfg.TRAIN.MULTIGRID
    if kind == "none":
        return []
    stages = LONG if kind in ("long", "both") else LONG[-1:]
    cycle = SHORT if kind in ("short", "both") else SHORT[-1:]
    return [
        [_grid(cfg, clips, every, min(short, long), long) for short in cycle]
        for clips, every, long in stages
    ]


def _grid(cfg: CfgNode, clips: int, every: int, share: float, long: float) -> Grid:
    frames, full = cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE
    tubelet, patch = cfg.TIMESFORMER.TUBELET_SIZE, cfg.TIMESFORMER.PATCH_SIZE
    named = f"TRAIN.MULTIGRID {cfg.TRAIN.MULTIGRID}"
    if frames % (every * tubelet):
        raise ConfigError(
            f"{named} takes one of {every} frames of a clip, and DATA.NUM_FRAMES {frames} is "
            f"no multiple of {every * tubelet}: set it to such, or take MULTIGRID short"
        )
    side = max(1, round(full * share / patch)) * patch
    if share < 1 and side >= full:
        raise ConfigError(
            f"{named} takes frames of {share:.2g} of DATA.TRAIN_CROP_SIZE {full}, to whole patches "
            f"of TIMESFORMER.PATCH_SIZE {patch}: there is no such size; take smaller patches"
        )
    return Grid(every, side, clips * round((long / share) ** 2))


class Steps:
    """The optimizer steps of a training's epochs, with or without TRAIN.MULTIGRID.

    Args:
        cfg: reads TRAIN.MULTIGRID, MULTIGRID_CYCLES, MULTIGRID_BATCH and the keys of `grids`.
        batches: of TRAIN.BATCH_SIZE in an epoch.
        accumulation: of them in a step of full clips.
    """

    def __init__(self, cfg: CfgNode, batches: int, accumulation: int) -> None:
        self.cfg = cfg
        self.batches = batches
        self.accumulation = accumulation
        self.numbers = {grid: i for i, grid in enumerate(grids(cfg))}
        self._counts: dict[tuple[Grid, ...], int] = {}

    def of(self, epoch: int) -> Iterator[Step]:
        """Yield the steps of an epoch (from 0).

        All have as many passes, but the last. What is left for a last step of larger batches is
        taken in smaller ones, so that an epoch sees the same clips whatever its grids.
        """
        turn, passes = grids_of_epoch(self.cfg, epoch), self.accumulation
        done = number = 0
        while left := self.batches - done:
            grid = turn[number % len(turn)]
            wanted = grid.clips if self.cfg.TRAIN.MULTIGRID_BATCH else 1
            size = min(wanted, max(1, left // passes))
            step = Step(done, size, min(passes, left), self.numbers[grid])
            yield step
            done += step.size * step.passes
            number += 1

    def count(self, epoch: int) -> int:
        """Return how many an epoch (from 0) has."""
        turn = tuple(grids_of_epoch(self.cfg, epoch))  # all that tells epochs apart
        if turn not in self._counts:
            self._counts[turn] = sum(1 for _ in self.of(epoch))
        return self._counts[turn]

    def progress(self, step: Step) -> float:
        """Return the share of its epoch that lies before a step."""
        whole = math.ceil(self.batches / self.accumulation) * self.accumulation
        return step.before / whole
