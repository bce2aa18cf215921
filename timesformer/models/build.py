"""From a config to a model on its device. The config stops here: models take plain arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from timesformer.config.defaults import get_cfg
from timesformer.models import others, vit  # noqa: F401  (register models)
from timesformer.models.architecture import KNOBS, NAMED_SIZES, Architecture
from timesformer.models.attention import ATTENTION_REGISTRY, SpaceTimeBlock
from timesformer.models.base import VideoModel
from timesformer.models.freezing import freeze, log_trained
from timesformer.models.lora import add_lora, check_used
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.utils.distributed import device_for, get_world, weights_from_main
from timesformer.utils.errors import ConfigError
from timesformer.utils.text import not_known

__all__ = [
    "MODEL_REGISTRY",
    "build_model",
    "choose_trained",
    "clip_shape",
    "has_scheme",
    "label",
    "make_model",
    "meta_model",
    "refuse_unread",
    "view_shape",
]

# Keys of weights rather than of models: where they come from, and how other sizes are fitted.
_SOURCE = "TIMESFORMER.PRETRAINED_MODEL"
_FITTING = {
    f"TIMESFORMER.{key}" for key in ("POS_EMBED_RESIZE", "TIME_EMBED_RESIZE", "TUBELET_INIT")
}


def build_model(cfg: CfgNode, gpu_id: int | None = None, *, training: bool = True) -> nn.Module:
    """Make the model of MODEL.MODEL_NAME on its device, with fresh weights.

    Args:
        cfg: a validated config.
        gpu_id: CUDA device to use; None takes the one of this process (CPU if NUM_GPUS is 0).
        training: some of it may be frozen (TRAIN.FREEZE), or trained by additions (LORA).

    Returns:
        The model, wrapped in DistributedDataParallel where several processes train, unless they
        are to share it (TRAIN.SHARDING), which begins later.

    Raises:
        ConfigError: for a model or attention scheme that isn't registered, a model that can't
            be shared, or patterns of what isn't there.
    """
    device = device_for(cfg) if gpu_id is None else torch.device("cuda", gpu_id)
    model = make_model(cfg).to(device)
    if training:
        choose_trained(cfg, model)
        log_trained(model)
    if cfg.TRAIN.SHARDING == "fsdp":
        _require_blocks(cfg, model)
        weights_from_main(model)  # as DistributedDataParallel does
    elif get_world().size > 1:
        # Not static_graph: accumulation with no_sync fails then, and a parameter that gets no
        # gradient isn't told any more.
        devices = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        if cfg.TRAIN.GRAD_COMPRESSION == "bf16":
            model.register_comm_hook(None, bf16_compress_hook)
    return model


def choose_trained(cfg: CfgNode, model: nn.Module) -> None:
    """Add what LORA says to a model, in place, and freeze what TRAIN.FREEZE does.

    Raises:
        ConfigError: patterns of what isn't there, or of layers that the model doesn't call; or
            nothing is left to train.
    """
    if cfg.LORA.RANK:
        add_lora(model, cfg.LORA.RANK, cfg.LORA.ALPHA, cfg.LORA.TARGETS)
        tried = meta_model(cfg)
        add_lora(tried, cfg.LORA.RANK, cfg.LORA.ALPHA, cfg.LORA.TARGETS)
        check_used(tried, clip_shape(cfg))
    freeze(model, cfg.TRAIN.FREEZE)


def _require_blocks(cfg: CfgNode, model: nn.Module) -> None:
    if not any(isinstance(module, SpaceTimeBlock) for module in model.modules()):
        raise ConfigError(
            f"TRAIN.SHARDING fsdp spreads a model block by block, and {cfg.MODEL.MODEL_NAME} has "
            "none of the registered schemes' blocks: set it to none"
        )


def make_model(cfg: CfgNode, strict: bool = True) -> nn.Module:
    """Make the bare model on torch's default device, e.g. under `with torch.device("meta")`.

    Args:
        cfg: a config.
        strict: refuse keys that are set and that the model doesn't read. What a file says of its
            model was checked when that was made, and is no wish of anybody.

    Raises:
        ConfigError: for a model or attention scheme that isn't registered, or a key that the model
            doesn't read.
    """
    for key, value, registry in (
        ("MODEL.MODEL_NAME", cfg.MODEL.MODEL_NAME, MODEL_REGISTRY),
        ("TIMESFORMER.ATTENTION_TYPE", cfg.TIMESFORMER.ATTENTION_TYPE, ATTENTION_REGISTRY),
    ):
        if value not in registry:
            raise ConfigError(not_known(key, value, sorted(name for name, _ in registry)))
    architecture = Architecture.from_cfg(cfg)
    try:
        model = MODEL_REGISTRY.get(architecture.model)(cfg)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{architecture.model}: {error}") from error
    if strict:
        _refuse_unread(cfg, model)
    model.architecture = architecture
    if not architecture.num_classes:  # torchvision's would make a layer with no outputs
        model.reset_classifier(0)
    return model


def _refuse_unread(cfg: CfgNode, model: nn.Module) -> None:
    """Raise ConfigError if keys are set that belong to models of another kind."""
    if not isinstance(model, VideoModel):
        return
    read = {_SOURCE, *(k.metadata["key"] for k in fields(Architecture) if k.name in model.knobs)}
    if isinstance(model, vit.TimeSformer) or hasattr(model, "image_part"):
        read |= _FITTING
    default = dict(get_cfg().leaves())
    unread = [
        key
        for key, value in cfg.leaves()
        if key.startswith(("TIMESFORMER.", "CNN.")) and key not in read and value != default[key]
    ]
    if unread:
        them = "them" if unread[1:] else "it"
        raise ConfigError(
            f"{', '.join(unread)}: {cfg.MODEL.MODEL_NAME} doesn't read {them}: leave {them} out"
        )


def refuse_unread(who: str, model: nn.Module, overrides: Iterable[str]) -> None:
    """Make sure that a model reads the knobs that were given for it.

    Args:
        who: what begins the message.
        model: the model.
        overrides: names of knobs.

    Raises:
        ConfigError: it doesn't read one.
    """
    knobs = getattr(model, "knobs", KNOBS) - {"model"}
    if unread := sorted(set(overrides) - knobs):
        name = getattr(model, "architecture", Architecture()).model
        raise ConfigError(
            f"{who}: {name} has no {unread[0]!r}; it is made from {', '.join(sorted(knobs))}"
        )


def meta_model(cfg: CfgNode) -> nn.Module:
    """Make the model without memory for its weights, to count what it costs."""
    with torch.device("meta"):
        return make_model(cfg)


def clip_shape(cfg: CfgNode) -> tuple[int, int, int, int]:
    """Return the shape (3, T, H, W) of a training clip."""
    side = cfg.DATA.TRAIN_CROP_SIZE
    return 3, cfg.DATA.NUM_FRAMES, side, side


def view_shape(cfg: CfgNode) -> tuple[int, int, int, int]:
    """Return the shape (3, T, H, W) of a test view."""
    side = cfg.DATA.TEST_CROP_SIZE
    return 3, cfg.DATA.NUM_FRAMES, side, side


def label(cfg: CfgNode) -> str:
    """Return what tables and titles call a model: its scheme, or its name if it has none.

    A name that says a size stands beside the scheme: "divided_space_time, vit_tiny".
    """
    name = cfg.MODEL.MODEL_NAME
    if not has_scheme(cfg):
        return name
    size = f", {name.partition('_patch')[0]}" if name in NAMED_SIZES else ""
    return f"{cfg.TIMESFORMER.ATTENTION_TYPE}{size}"


def has_scheme(cfg: CfgNode) -> bool:
    """Whether TIMESFORMER.ATTENTION_TYPE means something to the model."""
    return cfg.MODEL.MODEL_NAME in vit.TIMESFORMERS
