"""From a config to a model on its device. The config stops here: models take plain arguments."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.models import others, vit  # noqa: F401  (register models)
from timesformer.models.architecture import Architecture
from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.utils.distributed import device_for, get_world
from timesformer.utils.errors import ConfigError
from timesformer.utils.text import did_you_mean

__all__ = ["MODEL_REGISTRY", "build_model", "label", "make_model", "meta_model", "view_shape"]


def build_model(cfg: CfgNode, gpu_id: int | None = None) -> nn.Module:
    """Make the model of MODEL.MODEL_NAME on its device, with fresh weights.

    Args:
        cfg: a validated config.
        gpu_id: CUDA device to use; None takes the one of this process (CPU if NUM_GPUS is 0).

    Returns:
        The model, wrapped in DistributedDataParallel where several processes train.

    Raises:
        ConfigError: for a model or attention scheme that isn't registered.
    """
    device = device_for(cfg) if gpu_id is None else torch.device("cuda", gpu_id)
    model = make_model(cfg).to(device)
    if get_world().size > 1:
        devices = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    return model


def make_model(cfg: CfgNode) -> nn.Module:
    """Make the bare model on torch's default device, e.g. under `with torch.device("meta")`.

    Raises:
        ConfigError: for a model or attention scheme that isn't registered.
    """
    for key, value, registry in (
        ("MODEL.MODEL_NAME", cfg.MODEL.MODEL_NAME, MODEL_REGISTRY),
        ("TIMESFORMER.ATTENTION_TYPE", cfg.TIMESFORMER.ATTENTION_TYPE, ATTENTION_REGISTRY),
    ):
        if value not in registry:
            names = sorted(name for name, _ in registry)
            hint = did_you_mean(value, names) or f"; choose from {', '.join(names)}"
            raise ConfigError(f"{key} {value!r} is not registered{hint}")
    architecture = Architecture.from_cfg(cfg)
    try:
        model = MODEL_REGISTRY.get(architecture.model)(cfg)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{architecture.model}: {error}") from error
    model.architecture = architecture
    if not architecture.num_classes:  # torchvision's would make a layer with no outputs
        model.reset_classifier(0)
    return model


def meta_model(cfg: CfgNode) -> nn.Module:
    """Make the model without memory for its weights, to count what it costs."""
    with torch.device("meta"):
        return make_model(cfg)


def view_shape(cfg: CfgNode) -> tuple[int, int, int, int]:
    """Return the shape (3, T, H, W) of a test view."""
    side = cfg.DATA.TEST_CROP_SIZE
    return 3, cfg.DATA.NUM_FRAMES, side, side


def label(cfg: CfgNode) -> str:
    """Return what tables and titles call a model: its scheme, or its name if it has none."""
    name = cfg.MODEL.MODEL_NAME
    return cfg.TIMESFORMER.ATTENTION_TYPE if name in vit.TIMESFORMERS else name
