"""Whose names weights have, told from the names themselves, and what to call them here.

Native names are those of `VisionTransformer`, which are timm's. Other people's layouts are a module
each, with `matches(state)` and `to_native(state)`, and `from_native` where there is a way back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from timesformer.models.weights.formats import (
    caffe2,
    foreign,
    google_npz,
    hugging_face,
    image_resnet,
    mmaction2,
    pyslowfast,
    pytorchvideo,
    split_norms,
)
from timesformer.models.weights.formats.names import put

__all__ = [
    "BEFORE_HEAD",
    "IGNORED",
    "bare_name",
    "google_npz",
    "hugging_face",
    "image_resnet",
    "is_googles",
    "is_pyslowfasts",
    "mmaction2",
    "native_state",
    "pyslowfast",
    "said_by_layout",
]

logger = logging.getLogger(__name__)

BEFORE_HEAD = ("pre_logits.", "attn_pool.", *google_npz.IGNORED)
"""What image models compute between their last norm and the head, which then fits nothing else."""

# How often weights were averaged; what MAE and DINOv2 train with.
_UNUSED = ("n_averaged", "mask_token", "decoder_")
IGNORED = (*BEFORE_HEAD, *_UNUSED, *mmaction2.IGNORED)
"""Beginnings of names that no video model needs; `native_state` leaves them as they are."""

# First things first: the mean of the weights under way, which timm and torchvision evaluate, goes
# before the weights themselves, and Endo-FM's video model before the classifier beside it.
_AVERAGED = ("state_dict_ema", "model_ema")
_CONTAINERS = (
    *("model_state", *_AVERAGED, "backbone_state_dict"),
    *("state_dict", "teacher", "model", "module", caffe2.CONTAINER),
)
_DEEPEST = 8  # containers within each other; a file may hold one that holds itself
_PREFIXES = ("module.", "model.")
# A ViT inside another model: in front of names that are native without it.
_WITHIN = ("backbone.", "encoder.", "visual.", "visual_encoder.")
_PATCH = "patch_embed.proj."
_COMPILED = "_orig_mod."  # a part of a model may be compiled too


def native_state(
    content: Mapping[str, Any], positions: int = 0
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights in the content of a file, under native names where their layout is known.

    Args:
        content: what `read_weights` returns: a state dict, or one inside containers.
        positions: how many the model has that they are for; so many are taken as they are.

    Returns:
        The weights, and the names of entries that aren't any, or not of the model.

    Raises:
        ValueError: there are no weights, two of one name, or they are in a known layout of a model
            that isn't.
    """
    ours = isinstance(content.get("architecture"), Mapping)
    content = _inside(content)
    state: dict[str, Tensor] = {}
    others: list[str] = []
    for key, value in content.items():
        if not isinstance(value, Tensor):
            others.append(str(key))
            continue
        put(state, bare_name(str(key)), value, str(key))
    if not state:
        raise ValueError(f"holds no weights, only {', '.join(others[:8]) or 'nothing'}")
    if google_npz.matches(state):
        theirs, beside = google_npz.apart(state)
        native = google_npz.to_native(theirs)
        if google_npz.has_positions_of_patches(theirs):
            native = _with_cls_position(native)
        return native, [*others, *beside]
    if caffe2.matches(state):
        theirs, beside = caffe2.apart(state)
        return caffe2.to_native(theirs), [*others, *beside]
    if split_norms.matches(state):
        state = split_norms.joined(state)
    for layout in (hugging_face, mmaction2, pytorchvideo):
        if layout.matches(state):
            return layout.to_native(state), others
    foreign.refuse(state)
    state = _out_of_its_model(state)
    # Video models have a position of CLS, and frames that aren't square may have, with it, as many
    # as a square: 1 + 3·8.
    if not ours and "time_embed" not in state and _positions(state) != positions:
        state = _with_cls_position(state)
    return _without_layer_scale(state), others


def is_googles(content: Mapping[str, Any]) -> bool:
    """Whether the content of a file is a ViT in Google's layout."""
    state = content.get("state_dict", content)
    return isinstance(state, Mapping) and google_npz.matches(state)


def said_by_layout(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the preprocessing of a layout whose models have one in common; None: unknown."""
    state = _bare(content)
    for layout in (google_npz, mmaction2, pyslowfast, pytorchvideo, caffe2):
        if layout.matches(state):
            return layout.preprocessing(state)
    return None


def is_pyslowfasts(content: Mapping[str, Any]) -> bool:
    """Whether PySlowFast wrote a file, with models of its own or of pytorchvideo."""
    state = _bare(content)
    return pyslowfast.matches(state) or pytorchvideo.matches(state)


def _bare(content: Mapping[str, Any]) -> dict[str, Any]:
    return {bare_name(str(key)): value for key, value in _inside(content).items()}


def _inside(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the weights out of their containers.

    Raises:
        ValueError: they are in more of them than anybody makes.
    """
    for _ in range(_DEEPEST):
        inner = [
            key
            for key in _CONTAINERS
            if isinstance(content.get(key), Mapping) and (content[key] or key not in _AVERAGED)
        ]
        if not inner:
            return content
        if inner[0] == "teacher" and "student" in content:
            logger.info("the file has a student and a teacher: the teacher's weights are taken")
        elif inner[1:] and inner[0] != "model_state":
            logger.info("the file has %s: %s is taken", " and ".join(inner), inner[0])
        content = content[inner[0]]
    raise ValueError("its weights are in containers within containers without end")


def _positions(state: Mapping[str, Tensor]) -> int:
    pos_embed = state.get("pos_embed")
    return pos_embed.shape[1] if pos_embed is not None and pos_embed.ndim == 3 else 0


def _with_cls_position(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add a position of zero for CLS, in front, where positions are of patches alone.

    So it is in FlexiViT, DeiT III and big_vision's pool_type "tok": as many as a square has.
    """
    number = _positions(state)
    if "cls_token" not in state or number < 2 or math.isqrt(number) ** 2 != number:
        return state
    pos_embed = state["pos_embed"]
    logger.info("its %d positions are taken for those of patches; CLS gets one of zero", number)
    zero = pos_embed.new_zeros(1, 1, pos_embed.shape[2])
    return state | {"pos_embed": torch.cat([zero, pos_embed], dim=1)}


def _without_layer_scale(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put what scales a block's steps (DeiT III, DINOv2) into the projections that end these.

    It is a diagonal matrix behind a linear layer, so the outputs stay what they were.
    """
    ends = {".ls1.gamma": ".attn.proj.", ".ls2.gamma": ".mlp.fc2."}
    scaled = dict(state)
    for key, gamma in state.items():
        block, step, _ = key.rpartition(key[-len(".ls1.gamma") :])
        if not block.startswith("blocks.") or step not in ends:
            continue
        layer = block + ends[step]
        weight, bias = state.get(f"{layer}weight"), state.get(f"{layer}bias")
        if weight is None or bias is None or not gamma.shape == weight.shape[:1] == bias.shape:
            return state  # damaged: reported as it is
        scaled[f"{layer}weight"] = gamma.float()[:, None] * weight
        scaled[f"{layer}bias"] = gamma.float() * bias
        del scaled[key]
    if len(scaled) < len(state):
        logger.info("the scale of each step (ls1, ls2) is put into the projection that ends it")
    return scaled


def _out_of_its_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what stands in front of a ViT's names where it is a part of another model."""
    if any(key.startswith(_PATCH) for key in state):
        return state
    for prefix in _WITHIN:
        if any(key.startswith(prefix + _PATCH) for key in state):
            logger.info("weights are taken from inside another model: %s*", prefix)
            taken_out: dict[str, Tensor] = {}
            for key, value in state.items():
                put(taken_out, key.removeprefix(prefix), value, key)
            return taken_out
    return state


def bare_name(name: str) -> str:
    """Return a name without what wrappers put in front of it."""
    name = name.replace(_COMPILED, "")
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name
