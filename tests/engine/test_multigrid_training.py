"""TRAIN.MULTIGRID in training: the learning rate, what is said, and who refuses its clips."""

from __future__ import annotations

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.config.layout import batch_layout
from timesformer.config.multigrid import Steps
from timesformer.engine.multigrid import check_model, in_words, lr_of
from timesformer.utils.errors import ConfigError
from timesformer.utils.lr_policy import get_lr_at_epoch


def make(*words: object):
    cfg = get_cfg()
    cfg.merge_from_list(["TRAIN.MULTIGRID", "long", "SOLVER.MAX_EPOCH", 8, *words])
    return cfg


def test_learning_rate_is_in_proportion_to_the_clips_of_a_step() -> None:
    cfg = make("SOLVER.LR_POLICY", "cosine")
    steps = Steps(cfg, 20, 1)
    first = [(step.size, lr_of(steps, 0, step)) for step in steps.of(0)]
    assert first == [
        (8, 8 * get_lr_at_epoch(cfg, 0.0)),
        (8, 8 * get_lr_at_epoch(cfg, 0.4)),
        (4, 4 * get_lr_at_epoch(cfg, 0.8)),
    ]
    assert lr_of(steps, 7, next(steps.of(7))) == get_lr_at_epoch(cfg, 7)
    cfg.TRAIN.MULTIGRID_BATCH = False
    assert [lr_of(steps, 0, step) for step in steps.of(0)][4] == get_lr_at_epoch(cfg, 0.2)


def test_every_phase_is_said() -> None:
    cfg = make("GLOBAL_BATCH_SIZE", 16, "TRAIN.BATCH_SIZE", 8)
    assert in_words(Steps(cfg, 40, 2), batch_layout(cfg, 1, 1)) == [
        "epochs 1 to 3, 3 steps each: 128 clips of 2 × 160×160, learning rate × 8",
        "epochs 4 to 5, 5 steps each: 64 clips of 4 × 160×160, learning rate × 4",
        "epoch 6, 10 steps: 32 clips of 4 × 224×224, learning rate × 2",
        "epochs 7 to 8, 20 steps each: 16 clips of 8 × 224×224",
    ]
    cfg.TRAIN.MULTIGRID = "none"
    assert in_words(Steps(cfg, 40, 2), batch_layout(cfg, 1, 1)) == []


def test_models_that_need_longer_clips_refuse_it_by_name() -> None:
    check_model(make())
    check_model(make("MODEL.MODEL_NAME", "vtn"))
    with pytest.raises(
        ConfigError, match=r"TRAIN.MULTIGRID long: s3d doesn't take clips of 2 × 160"
    ):
        check_model(make("MODEL.MODEL_NAME", "s3d"))
