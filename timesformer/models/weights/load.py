"""Loading weights that somebody else made: read, normalise names, adapt, load, report.

Every weight of the model and every entry of the file is accounted for in a `LoadReport`; what
can't be explained is an error, and the model is then left as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from timesformer.models.lora import merged, own_state
from timesformer.models.weights.adapt import (
    LoadReport,
    Resizing,
    StateDict,
    adapt,
    other_head,
    with_counters,
)
from timesformer.models.weights.describe import PATCH, describe
from timesformer.models.weights.formats import (
    IGNORED,
    bare_name,
    image_resnet,
    is_googles,
    native_state,
    pyslowfast,
)
from timesformer.models.weights.said import check_config
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import bare, differences
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.tensors import check_tensors

__all__ = ["LoadReport", "load_pretrained"]

logger = logging.getLogger(__name__)


def load_pretrained(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    pos_embed_resize: str = "bicubic",
    time_embed_resize: str = "nearest",
    tubelet_init: str = "central",
    name: str = "a state dict",
) -> LoadReport:
    """Load image or video weights into a model, in place.

    An image ViT starts a video model as the paper does: new attention is copied from the image's,
    the layers that end a new step and time_embed are zero, so a still video gives the image
    model's output.

    Args:
        model: a `VisionTransformer`, or a model that holds one as `.model`, wrapped or not; or
            any other registered model, whose weights go by name. Where that has an `image_part`,
            an image ViT's weights are loaded into it; a 3D ResNet-50 takes those of an image one.
        source: whatever `read_weights` reads; or the content of a file.
        pos_embed_resize: how pos_embed is fitted to another grid: "bicubic" or "bilinear" in two
            dimensions, or "legacy", the published behaviour: 1-D nearest over the flattened patch
            sequence, which scrambles rows and columns; only for scoring as old runs did.
        time_embed_resize: how time_embed is fitted to other frame counts: "nearest", as
            published, or "linear".
        tubelet_init: how an image's patch kernel becomes one of several frames: "central" or
            "average", see `Resizing`.
        name: what messages call a `source` that is the content of a file.

    Returns:
        What happened to every weight; it is logged too.

    Raises:
        WeightsError: if weights can't be read or fetched, or some can't be explained; the message
            lists all of those.
        ConfigError: for a way to fit weights that isn't known, or that the model has no use for.
    """
    resizing = Resizing(pos_embed_resize, time_embed_resize, tubelet_init)
    _check_read(model, resizing)
    if isinstance(source, Mapping):
        content: Mapping[str, Any] = source
    else:
        name, content = str(source), read_weights(source)
    try:
        found, ignored = native_state(content, _positions(model))
        check_config(content, found)
        found = dict(merged(found))
    except ValueError as error:
        raise WeightsError(f"{name}: {error}") from error
    check_tensors(name, {k: v for k, v in found.items() if not k.startswith(IGNORED)})
    resizing = replace(resizing, googles=is_googles(content))
    report = load_native(model, found, name, resizing)
    report = replace(report, ignored=(*ignored, *report.ignored))
    logger.info("%s", report.summary())
    if "cls_token" in report.missing:
        logger.warning(
            "%s has no CLS token: its model averages its tokens; CLS and head are fresh here, so "
            "scores mean nothing before training",
            name,
        )
    return report


def _positions(model: nn.Module) -> int:
    """Return the number of positions of a model that is a ViT; 0 of another."""
    target: Any = bare(model)
    pos_embed = getattr(getattr(target, "model", target), "pos_embed", None)
    return pos_embed.shape[1] if isinstance(pos_embed, Tensor) and pos_embed.ndim == 3 else 0


def _check_read(model: nn.Module, resizing: Resizing) -> None:
    """Refuse ways to fit a ViT's weights that a model which holds no ViT would ignore.

    Raises:
        ConfigError: one is asked for.
    """
    target: Any = bare(model)
    if hasattr(getattr(target, "model", target), "attention_type") or hasattr(target, "image_part"):
        return
    names = {"pos_embed": "pos_embed_resize", "time_embed": "time_embed_resize"}
    for knob in fields(Resizing):
        if getattr(resizing, knob.name) != knob.default:
            name = getattr(getattr(target, "architecture", None), "model", type(target).__name__)
            raise ConfigError(
                f"load_pretrained: {name} has no use for "
                f"{names.get(knob.name, 'tubelet_init')!r}, which is for ViTs: leave it out"
            )


def load_native(
    model: nn.Module, found: StateDict, name: str, resizing: Resizing | None = None
) -> LoadReport:
    """Load weights that have native names already, as `load_pretrained` does.

    Args:
        model: see there.
        found: the weights.
        name: what messages call them.
        resizing: how other sizes are fitted.

    Raises:
        WeightsError: some weights can't be explained.
    """
    target: Any = bare(model)
    inner = getattr(target, "model", target)
    try:
        if hasattr(inner, "attention_type"):  # a VisionTransformer
            report = _load_vit(inner, found, resizing or Resizing())
        else:
            report = _load_other(target, found, resizing or Resizing())
    except ValueError as error:
        raise WeightsError(f"{name}: {error}") from error
    return replace(report, source=name)


def _load_vit(vit: Any, found: StateDict, resizing: Resizing) -> LoadReport:
    """Into a `VisionTransformer`, fitted to it."""
    state, report = adapt(found, vit, resizing)
    return _load(vit, state, found, report)


def _load_other(model: Any, found: StateDict, resizing: Resizing) -> LoadReport:
    """By name, or an image ViT's weights into the part of the model that is one."""
    own = own_state(model)
    if hasattr(model, "image_part"):
        prefix, vit = model.image_part()
        if PATCH in found and not any(key.startswith(prefix) for key in found):
            return _around(prefix, _load_vit(vit, found, resizing), own)
    flat = image_resnet.matches(found) or pyslowfast.is_flat(found)
    if flat and pyslowfast.matches(own):
        logger.info("the weights of an image ResNet are spread over the frames of its kernels")
        found = image_resnet.to_native(found, own)
    names = {bare_name(key): key for key in own}
    state = with_counters({names.get(key, key): value for key, value in found.items()}, own)
    fitted = {}
    if hasattr(model, "fit_positions"):
        fitted = model.fit_positions(state, resizing.pos_embed, resizing.time_embed)
    theirs, ours = other_head(state, own, getattr(model, "classifier_name", "head"))
    state = {key: value for key, value in (state | fitted).items() if key not in theirs}
    report = LoadReport(resized=tuple(fitted), missing=tuple(ours), unexpected=tuple(theirs))
    return _load(model, state, found, report)


def _around(prefix: str, part: LoadReport, own: Mapping[str, Tensor]) -> LoadReport:
    """Return the report of a whole model, of which a part was loaded; the rest is missing."""
    of_model = ("loaded", "resized", "copied", "zeroed", "missing")
    names: dict[str, Any] = {
        what: tuple(prefix + key for key in getattr(part, what)) for what in of_model
    }
    names["missing"] += tuple(key for key in own if not key.startswith(prefix))
    return replace(part, **names)


def _load(model: nn.Module, state: StateDict, found: StateDict, report: LoadReport) -> LoadReport:
    """Load what was fitted, unless some of it can't be explained; complete the report.

    Raises:
        ValueError: it can't be, in one line for all of it.
    """
    own = own_state(model)
    wanted = {key: value for key, value in own.items() if key not in report.missing}
    if wrong := differences(wanted, state):
        theirs, ours = describe(found), describe(own)
        looks = "" if theirs == ours else f": they look like {theirs}, the model is {ours}"
        raise ValueError(
            f"not weights of this model{looks} ({len(wrong)} entries differ): " + "; ".join(wrong)
        )
    model.load_state_dict(state, strict=False)
    explained = {*report.resized, *report.copied, *report.zeroed}
    return replace(report, loaded=tuple(k for k in own if k in state and k not in explained))
