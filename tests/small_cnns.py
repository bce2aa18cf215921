"""Narrow SlowFast, Slow, I3D and X3D with noise in every weight."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.models.create import create_model

FRAMES = {"slowfast_r50": 32, "slow_r50": 8, "i3d_r50": 8, "x3d_m": 16}
NAMES = list(FRAMES)


def cfg_of(name: str, *options) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.DATA.NUM_FRAMES = name, FRAMES[name]
    cfg.merge_from_list(list(options))
    return cfg


def narrow(name: str, **options) -> nn.Module:
    """A narrow model with noise in every parameter and buffer, in evaluation mode."""
    sizes = {"width": 0.125, "img_size": 64, "num_frames": 8, "num_classes": 6} | options
    return scramble(create_model(name, **sizes))


@torch.no_grad()
def scramble(model: nn.Module) -> nn.Module:
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            value.fill_(7)
        elif value.ndim > 1:
            value.normal_(std=(2 / value[0].numel()) ** 0.5)
        elif key.endswith(("running_var", "weight")):
            value.uniform_(0.5, 1.5)
        else:
            value.normal_(std=0.1)
    return model.eval()
