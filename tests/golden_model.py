"""The tiny model, clips and training steps that the golden numbers were made with."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from fvcore.common.config import CfgNode
from golden_recipe import clip_for
from torch import Tensor, nn

from timesformer.config.defaults import get_cfg
from timesformer.models.vit import VisionTransformer

SCHEMES = ("space_only", "joint_space_time", "divided_space_time")
CASES = {
    "native": (2, 3, 4, 64, 64),
    "longer": (2, 3, 6, 64, 64),
    "larger": (2, 3, 4, 96, 96),
    "wide": (1, 3, 4, 64, 96),
    "tall_short": (1, 3, 2, 96, 64),
}
SOLVERS = {"sgd": (0.005, 1e-4), "adamw": (1e-3, 0.05)}  # learning rate, weight decay
STEPS = 8


def tiny_model(attention_type: str, **changes: Any) -> VisionTransformer:
    arguments: dict[str, Any] = {
        "img_size": 64,
        "patch_size": 16,
        "num_classes": 10,
        "embed_dim": 96,
        "depth": 3,
        "num_heads": 3,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "drop_path_rate": 0,
        "num_frames": 4,
        "attention_type": attention_type,
    }
    return VisionTransformer(**(arguments | changes))


def solver_cfg(optimizer: str) -> CfgNode:
    """Return the config of a golden training."""
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD = optimizer
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = SOLVERS[optimizer]
    return cfg


def step_batch(step: int) -> tuple[Tensor, Tensor]:
    """Return the clips and labels of a step of it, counted from 0."""
    labels = torch.tensor([(3 * step + 1) % 10, (7 * step + 2) % 10])
    return clip_for(f"step{step}", CASES["native"], 0), labels


def gradient_batch() -> tuple[Tensor, Tensor]:
    """Return the clips and labels whose gradients were recorded."""
    return clip_for("native", CASES["native"], 0), torch.tensor([1, 7])
