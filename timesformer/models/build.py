"""From a config to a model on its device. The config stops here: models take plain arguments."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.vit import TimeSformer
from timesformer.utils.distributed import device_for, get_world
from timesformer.utils.errors import ConfigError
from timesformer.utils.misc import nearest

__all__ = ["MODEL_REGISTRY", "build_model"]

SIZES = {  # model name -> embed_dim, depth, num_heads
    "vit_tiny_patch16_224": (192, 12, 3),
    "vit_small_patch16_224": (384, 12, 6),
    "vit_base_patch16_224": (768, 12, 12),
    "vit_large_patch16_224": (1024, 24, 16),
}
