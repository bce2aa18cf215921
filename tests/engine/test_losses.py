"""Losses, and mixing of clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timesformer.config.defaults import get_cfg
from timesformer.engine.losses import build_loss, build_mixup
from timesformer.utils.errors import ConfigError


def mixup_cfg(**options):
    cfg = get_cfg()
    cfg.MIXUP.ENABLED = True
    cfg.MODEL.NUM_CLASSES = 4
    for key, value in options.items():
        cfg.MIXUP[key] = value
    return cfg


def test_cutmix_pastes_one_box_into_all_frames():
    mix = build_mixup(mixup_cfg(SWITCH_PROB=1.0))
    clips = torch.stack([torch.zeros(3, 5, 32, 32), torch.ones(3, 5, 32, 32)])
    np.random.seed(1)  # noqa: NPY002  (timm draws from the global generator)
    mixed, targets = mix(clips, torch.tensor([0, 2]))
    assert mixed.shape == (2, 3, 5, 32, 32)
    pasted = mixed[0] > 0
    assert 0 < pasted.float().mean() < 1
    assert (pasted == pasted[:1, :1]).all()  # the same in every channel and frame
    share = pasted.float().mean().item()
    torch.testing.assert_close(targets[0], torch.tensor([1 - share, 0, share, 0]))


def test_mixup_blends_clips_and_labels_alike():
    cfg = mixup_cfg(SWITCH_PROB=0.0)
    cfg.SOLVER.LABEL_SMOOTHING = 0.1
    clips = torch.stack([torch.zeros(3, 2, 8, 8), torch.ones(3, 2, 8, 8)])
    mixed, targets = build_mixup(cfg)(clips, torch.tensor([0, 1]))
    share = mixed[0].unique().item()
    assert targets.sum(dim=1).tolist() == pytest.approx([1, 1])
    assert targets[0, 1].item() == pytest.approx(share * 0.9 + 0.025)
    loss = build_loss(cfg)(torch.zeros(2, 4), targets)
    assert loss.item() == pytest.approx(np.log(4), rel=1e-5)


def test_mixup_off_and_label_smoothing():
    cfg = get_cfg()
    assert build_mixup(cfg) is None
    cfg.SOLVER.LABEL_SMOOTHING = 0.1
    assert build_loss(cfg).label_smoothing == 0.1
    cfg.MODEL.LOSS_FUNC = "hinge"
    with pytest.raises(ConfigError, match=r"MODEL\.LOSS_FUNC"):
        build_loss(cfg)


def test_the_same_numpy_seed_mixes_the_same():
    mix, clips, labels = build_mixup(mixup_cfg()), torch.randn(4, 3, 2, 16, 16), torch.arange(4)
    runs = []
    for seed in (3, 3, 4):
        np.random.seed(seed)  # noqa: NPY002
        runs.append(mix(clips.clone(), labels))
    assert all(torch.equal(a, b) for a, b in zip(*runs[:2], strict=True))
    assert not torch.equal(runs[1][0], runs[2][0])
