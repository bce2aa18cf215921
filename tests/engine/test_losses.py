"""Losses, and mixing of clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timesformer.config.defaults import get_cfg
from timesformer.engine.losses import build_loss, build_mixup, class_weights
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


COUNTS = [100, 10, 0, 40]


def weighted(power, **options):
    cfg = mixup_cfg(**options)
    cfg.MODEL.CLASS_WEIGHTS = power
    return cfg


def test_weights_of_classes():
    """N / (K n) of the classes that have videos, as scikit-learn's "balanced"; 1 in the mean."""
    balanced = class_weights(COUNTS, 1.0)
    assert balanced.tolist() == pytest.approx([150 / 300, 150 / 30, 1, 150 / 120])
    for power in (0.0, 0.3, 1.0):
        weights = class_weights(COUNTS, power)
        assert np.average(weights, weights=COUNTS) == pytest.approx(1.0)
        assert (weights[1] / weights[0]).item() == pytest.approx(10**power)
    with pytest.raises(ValueError, match="number of videos"):
        build_loss(weighted(1.0))


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("case", ["labels", "smoothed", "mixed"])
def test_weighted_cross_entropy_is_the_plain_formula(case, power):
    """-Σ w t log p, and its gradient p Σ w t - w t, each in the mean over the clips."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 3, 3, 1])
    shares = torch.eye(4, dtype=torch.float64)[labels]
    cfg, targets = weighted(power), labels
    cfg.MIXUP.ENABLED = case == "mixed"
    if case == "smoothed":
        cfg.SOLVER.LABEL_SMOOTHING = 0.1
        shares = 0.9 * shares + 0.1 / 4
    elif case == "mixed":
        shares = 0.7 * shares + 0.3 * shares.flip(0)
        targets = shares
    loss_of = build_loss(cfg, COUNTS).double()
    loss = loss_of(logits, targets)
    w, p = loss_of.weights, logits.detach().softmax(1)
    assert loss.item() == pytest.approx(-(w * shares * p.log()).sum(1).mean().item())
    loss.backward()
    expected = (p * (w * shares).sum(1, keepdim=True) - w * shares) / 6
    torch.testing.assert_close(logits.grad, expected)
    halves = [loss_of(logits[i : i + 3], targets[i : i + 3]) for i in (0, 3)]
    assert (sum(halves) / 2).item() == pytest.approx(loss.item())  # however it is accumulated


def test_equal_weights_are_none():
    """With as many videos of each class all three losses are the published ones."""
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    soft, several = torch.rand(6, 4).softmax(1), (torch.rand(6, 4) < 0.4).float()
    for mixed, name, targets in (
        (True, "cross_entropy", soft),
        (False, "cross_entropy", labels),
        (False, "bce", several),
    ):
        cfg = weighted(1.0)
        cfg.MIXUP.ENABLED, cfg.MODEL.LOSS_FUNC = mixed, name
        loss = build_loss(cfg, [7, 7, 7, 7])(logits, targets)
        cfg.MODEL.CLASS_WEIGHTS = 0.0
        torch.testing.assert_close(loss, build_loss(cfg)(logits, targets))


def test_weighted_bce_weighs_the_labels_that_hold():
    cfg = weighted(1.0)
    cfg.MIXUP.ENABLED, cfg.MODEL.LOSS_FUNC = False, "bce"
    logits, targets = torch.randn(5, 4), (torch.rand(5, 4) < 0.5).float()
    w, p = class_weights(COUNTS, 1.0), logits.sigmoid()
    expected = -(w * targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(build_loss(cfg, COUNTS)(logits, targets), expected)


def test_the_defaults_are_the_published_losses():
    cfg = get_cfg()
    assert type(build_loss(cfg, COUNTS)) is torch.nn.CrossEntropyLoss
    assert build_loss(cfg, COUNTS).weight is None
    cfg.MIXUP.ENABLED = True
    assert type(build_loss(cfg, COUNTS)).__name__ == "SoftTargetCrossEntropy"
