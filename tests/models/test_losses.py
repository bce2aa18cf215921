"""Losses, mixup of clips, optimizers, and building from a config."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.models.build import build_model
from timesformer.models.losses import build_loss, build_mixup
from timesformer.models.optimizer import construct_optimizer, set_lr
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


@pytest.mark.parametrize("method", ["sgd", "adam", "adamw"])
def test_optimizer_takes_trainable_parameters_with_decay(method):
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD = method
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model[0].weight.requires_grad_(False)
    optimizer = construct_optimizer(model, cfg)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 3
    assert group["weight_decay"] == cfg.SOLVER.WEIGHT_DECAY
    assert type(optimizer).__name__.lower() == method
    set_lr(optimizer, 0.3)
    assert optimizer.param_groups[0]["lr"] == 0.3
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        construct_optimizer(model, cfg)


def small_cfg(**options):
    cfg = get_cfg()
    cfg.NUM_GPUS = 0
    cfg.DATA.TRAIN_CROP_SIZE = 32
    cfg.TIMESFORMER.EMBED_DIM, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.NUM_HEADS = 12, 2, 3
    return cfg


def test_sizes_come_from_the_config():
    cfg = small_cfg()
    cfg.TIMESFORMER.PATCH_SIZE, cfg.TIMESFORMER.MLP_RATIO = 8, 2.0
    cfg.TIMESFORMER.DROP_PATH_RATE = 0.25
    cfg.TIMESFORMER.ACT_CHECKPOINT = True
    model = build_model(cfg).model
    assert model.pos_embed.shape == (1, 17, 12)
    assert len(model.blocks) == 2
    assert model.blocks[0].mlp.fc1.out_features == 24
    assert model.blocks[1].drop_path.drop_prob == 0.25
    assert model.act_checkpoint
    assert all(k.startswith("model.") for k in build_model(cfg).state_dict())


def test_named_size_refuses_other_sizes():
    cfg = small_cfg()
    cfg.MODEL.MODEL_NAME = "vit_tiny_patch16_224"
    with pytest.raises(ConfigError, match=r"TIMESFORMER\.EMBED_DIM"):
        build_model(cfg)
    cfg.TIMESFORMER.EMBED_DIM, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.NUM_HEADS = 768, 12, 12
    assert build_model(cfg).model.embed_dim == 192


@pytest.mark.parametrize("key", ["MODEL.MODEL_NAME", "TIMESFORMER.ATTENTION_TYPE"])
def test_unknown_names_show_the_nearest(key):
    cfg = small_cfg()
    group, name = key.split(".")
    right = cfg[group][name]
    cfg[group][name] = right[:-1]
    with pytest.raises(ConfigError, match=rf"{key}.*did you mean {right}"):
        build_model(cfg)
