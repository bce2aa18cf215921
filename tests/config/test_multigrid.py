"""TRAIN.MULTIGRID: which clips and how many the steps of an epoch have, by arithmetic alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.config.multigrid import Grid, Step, Steps, grids, grids_of_epoch
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.utils.errors import ConfigError

FULL = Grid(1, 224, 1)
LONG = [Grid(4, 160, 8), Grid(2, 160, 4), Grid(2, 224, 2), FULL]  # √½ of 224 to whole patches


def make(kind: str, *words: object) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list(["TRAIN.MULTIGRID", kind, *words])
    return cfg


def test_grids() -> None:
    assert grids(make("none")) == [FULL]
    assert grids(make("long")) == [FULL, *LONG[:3]]
    assert grids(make("short")) == [FULL, Grid(1, 112, 4), Grid(1, 160, 2)]
    both = [Grid(4, 112, 16), Grid(4, 160, 8), Grid(2, 112, 8), Grid(2, 160, 4)]
    both += [Grid(2, 224, 2), Grid(1, 112, 4), Grid(1, 160, 2)]
    assert grids(make("both")) == [FULL, *both]


def test_epochs_of_a_long_cycle_are_as_many_as_their_clips_are_more() -> None:
    """15 epochs: 4 whole at the end, the 11 before by 8:4:2:1; the last of a cycle is short."""
    turns = [grids_of_epoch(make("long"), epoch) for epoch in range(15)]
    assert [turn for (turn,) in turns] == [LONG[0]] * 6 + [LONG[1]] * 3 + [LONG[2]] + [FULL] * 5
    twice = make("long", "TRAIN.MULTIGRID_CYCLES", 2, "SOLVER.MAX_EPOCH", 34)
    names = [LONG.index(grids_of_epoch(twice, epoch)[0]) for epoch in range(34)]
    assert names[25:] == [3] * 9
    falls = [b < a for a, b in pairwise(names)]
    assert sum(falls) == 1


@pytest.mark.parametrize("kind", ["none", "long", "short", "both"])
@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("batches", [1, 5, 37, 64])
def test_an_epoch_has_the_same_clips_whatever_its_grids(
    kind: str, larger: bool, accumulation: int, batches: int
) -> None:
    cfg = make(kind, "TRAIN.MULTIGRID_BATCH", larger)
    steps = Steps(cfg, batches, accumulation)
    for epoch in range(15):
        plan = list(steps.of(epoch))
        assert steps.count(epoch) == len(plan)
        ends = [0, *(step.before + step.size * step.passes for step in plan)]
        assert [step.before for step in plan] == ends[:-1]
        assert ends[-1] == batches
        assert all(step.passes == accumulation for step in plan[:-1]), "groups are cut by it"
        known = grids(cfg)
        wanted = [known[step.grid].clips if larger else 1 for step in plan]
        assert all(step.size <= most for step, most in zip(plan, wanted, strict=True))
        # as large as they are to be, but for what is left at the end
        whole = [step for step, most in zip(plan, wanted, strict=True) if step.size == most]
        assert len(plan) - len(whole) <= 4
        assert 0 == steps.progress(plan[0]) <= steps.progress(plan[-1]) < 1


def test_plain_steps_are_the_published_ones() -> None:
    steps = Steps(make("none"), 5, 2)
    assert list(steps.of(0)) == [Step(0, 1, 2, 0), Step(2, 1, 2, 0), Step(4, 1, 1, 0)]
    assert [steps.progress(step) for step in steps.of(0)] == [i / 3 for i in range(3)]


def test_a_short_cycle_goes_from_step_to_step() -> None:
    cfg = make("short", "SOLVER.MAX_EPOCH", 4)
    plan = list(Steps(cfg, 16, 1).of(0))
    assert [step.size for step in plan] == [4, 2, 1, 4, 2, 1, 2]
    assert [step.grid for step in plan] == [1, 2, 0, 1, 2, 0, 1]
    assert [step.size for step in Steps(cfg, 16, 1).of(3)] == [1] * 16


@pytest.mark.parametrize(("kind", "phases"), [("none", 1), ("long", 4), ("both", 5)])
def test_steps_of_epochs_that_are_alike_are_counted_once(
    kind: str, phases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, those of 10⁶ videos and 100 epochs take up to 22 seconds."""
    steps, counted = Steps(make(kind, "SOLVER.MAX_EPOCH", 100), 37, 2), list[int]()
    plan = steps.of
    monkeypatch.setattr(steps, "of", lambda epoch: counted.append(epoch) or plan(epoch))
    assert [steps.count(e) for e in range(100)] == [len([*plan(e)]) for e in range(100)]
    assert len(counted) == phases


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["DATA.NUM_FRAMES", 6], ["one of 4", "DATA.NUM_FRAMES 6", "multiple of 4"]),
        (["TIMESFORMER.TUBELET_SIZE", 4], ["DATA.NUM_FRAMES 8", "multiple of 16"]),
        (["DATA.TRAIN_CROP_SIZE", 16], ["DATA.TRAIN_CROP_SIZE 16", "TIMESFORMER.PATCH_SIZE 16"]),
    ],
)
def test_clips_that_are_too_small(words: list[object], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        grids(make("long", *words))
    assert all(fragment in str(caught.value) for fragment in ["TRAIN.MULTIGRID long", *fragments])


@pytest.mark.parametrize(("epochs", "most"), [(2, 1), (8, 3), (34, 12)])
def test_more_cycles_than_epochs_are_refused(epochs: int, most: int) -> None:
    """All epochs would be at the same place of a cycle, and have the same grid."""
    check(make("both", "SOLVER.MAX_EPOCH", epochs, "TRAIN.MULTIGRID_CYCLES", most))
    for kind in ("long", "both"):
        cfg = make(kind, "SOLVER.MAX_EPOCH", epochs, "TRAIN.MULTIGRID_CYCLES", most + 1)
        with pytest.raises(ConfigError, match=rf"_CYCLES {most + 1}: .*: set it to {most} at most"):
            check(cfg)
