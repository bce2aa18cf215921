"""The tiny model that the golden numbers were made with."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from timesformer.models.vit import VisionTransformer

SCHEMES = ("space_only", "joint_space_time", "divided_space_time")


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
