"""Learning rates against the published schedules."""

from __future__ import annotations

import json

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.utils.lr_policy import get_lr_at_epoch


def paper_steps():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH = 0.005, 15
    cfg.SOLVER.STEPS, cfg.SOLVER.LRS = [0, 11, 14], [1, 0.1, 0.01]
    return cfg


def cosine_warmup():
    cfg = get_cfg()
    cfg.SOLVER.LR_POLICY = "cosine"
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH = 0.1, 30
    cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.WARMUP_START_LR = 5, 0.01
    return cfg


@pytest.mark.parametrize("make", [paper_steps, cosine_warmup])
def test_golden_schedule(make, golden):
    expected = json.loads((golden / "lr_schedules.json").read_text())[make.__name__]
    cfg = make()
    assert len(expected) >= 60
    for epoch, lr in expected:
        assert get_lr_at_epoch(cfg, epoch) == pytest.approx(lr, rel=1e-12), epoch


def test_cosine_ends_at_its_floor():
    cfg = cosine_warmup()
    cfg.SOLVER.COSINE_END_LR = 1e-3
    assert get_lr_at_epoch(cfg, 30) == pytest.approx(1e-3)
