"""What a set of weights is, read off its names and shapes."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.weights.formats import BEFORE_HEAD, pyslowfast

logger = logging.getLogger(__name__)

PATCH = "patch_embed.proj.weight"


def _block_parts(state: Mapping[str, Tensor]) -> set[str]:
    return {key.split(".")[2] for key in state if re.match(r"blocks\.\d+\.", key)}


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in state if key.startswith("blocks.")})


def sizes_of(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return width and depth of a ViT."""
    return (state[PATCH].shape[0] if PATCH in state else 0), _depth(state)


def schemes_of(state: Mapping[str, Tensor]) -> list[str]:
    """Return the registered schemes whose weights have these (native) names, in their order.

    Some schemes differ in nothing but the order of their steps, so there may be several.
    """
    parts, cls_token = _block_parts(state), "cls_token" in state
    return [
        name
        for name, block in ATTENTION_REGISTRY
        if block.cls_token == cls_token
        and {"norm1", "attn", "norm2", "mlp"} | block.new_parts() == parts
    ]


def describe(state: Mapping[str, Tensor]) -> str:
    """Return what the weights look like, in words that lead to the key to change."""
    if any("encoder.layer." in key for key in state):
        return "a Hugging Face model"
    if pyslowfast.matches(state):
        return "a 3D CNN with PySlowFast's names"
    if any("layer1.0.conv" in key for key in state):
        return "a ResNet"
    if PATCH not in state or not _block_parts(state):
        return (
            "something that isn't a ViT (weights of a model to compare with are taken by "
            "create_model(NAME, pretrained=…))"
        )
    scheme = " or ".join(_fitting(state)) or f"blocks of {', '.join(sorted(_block_parts(state)))}"
    patch = state[PATCH].shape
    sizes = f"EMBED_DIM {patch[0]}, DEPTH {_depth(state)}"
    if (hidden := state.get("blocks.0.mlp.fc1.weight")) is not None and patch[0]:
        sizes += f", MLP_RATIO {hidden.shape[0] / patch[0]:g}"
    if len(patch) >= 4:
        sizes += f", PATCH_SIZE {patch[-1]}"
    if len(patch) == 5:
        sizes += f", TUBELET_SIZE {patch[2]}"
    return f"a ViT with {scheme} ({sizes})"


def told_by_shapes(state: Mapping[str, Tensor], scheme: str) -> dict[str, Any]:
    """Return the knobs of `Architecture` that a ViT's weights with native names tell by themselves.

    There is no img_size where frames aren't square, or there is no pos_embed.

    Args:
        state: the weights.
        scheme: its attention_type.
    """
    patch = state[PATCH].shape
    tubelet = patch[2] if len(patch) == 5 else 1
    side = patch[-1] if len(patch) >= 4 else math.isqrt(patch[1] // 3)
    told: dict[str, Any] = {
        "patch_size": side,
        "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
        "embed_dim": patch[0],
        "depth": _depth(state),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / patch[0],
        "tubelet_size": tubelet,
        "pos_embed_type": "space_time",
    }
    if "time_embed" in state:
        told["num_frames"] = state["time_embed"].shape[1] * tubelet
    elif _ordered(scheme):
        told["pos_embed_type"] = "space"
    if "pos_embed" not in state:
        told["pos_embed_type"] = "none"
    else:
        patches = state["pos_embed"].shape[1] - ("cls_token" in state)
        if math.isqrt(patches) ** 2 == patches:
            told["img_size"] = math.isqrt(patches) * side
    return told


ON_ANOTHER_LAYER = (
    "the output of a layer before it (pre_logits, a pooling head), which is none here"
)
"""What the head that `unfit_head` names was trained on."""


def unfit_head(found: Mapping[str, Tensor]) -> list[str]:
    """Name the head of an image model that reads something else than the tokens after the norm."""
    if not any(key.startswith(BEFORE_HEAD) for key in found):
        return []
    return [key for key in found if key.startswith("head.")]


def frames_apart(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> bool:
    """Tell whether weights may be of a scheme that needs no time_embed, and nothing else says."""
    return "pos_embed_type" not in said and not all(map(_ordered, schemes_of(state)))


def guesses(
    state: Mapping[str, Tensor], said: Mapping[str, Any], fallback: str | None = None
) -> dict[str, Any]:
    """Guess the knobs of `Architecture` that a ViT's weights don't tell, where nothing says them.

    The number of heads is D / 64, as in all of ViT-Ti to ViT-L. Of several `schemes_of` that it may
    be, it is divided if that is among them.

    Args:
        state: the weights.
        said: knobs that are known; they aren't guessed.
        fallback: the attention_type of weights that are of no scheme.

    Raises:
        ValueError: they aren't a ViT's of a registered scheme, or one that can't be guessed.
    """
    schemes = schemes_of(state) if PATCH in state else []
    if not schemes:
        raise ValueError(f"no model is known for these weights: they are {describe(state)}")
    guessed: dict[str, Any] = {}
    if "num_heads" not in said:
        guessed["num_heads"], rest = divmod(state[PATCH].shape[0], 64)
        if rest or not guessed["num_heads"]:
            raise ValueError(
                f"nothing says how many heads these weights have, and their width "
                f"{state[PATCH].shape[0]} isn't a multiple of 64 to tell it: say num_heads"
            )
        logger.warning(
            "nothing says how many heads these weights have: taken for %d, each 64 wide; with "
            "another number, which num_heads would say, scores are others",
            guessed["num_heads"],
        )
    if "attention_type" not in said:
        fitting = _fitting(state)
        if not fitting and not any(ATTENTION_REGISTRY.get(s).new_parts() for s in schemes):
            if fallback:
                return guessed | {"attention_type": fallback}
            raise ValueError(
                "they are an image model without CLS, which no scheme is: load them into a model "
                "that is made (load_pretrained), or say attention_type"
            )
        fitting, divided = fitting or schemes, "divided_space_time"
        guessed["attention_type"] = divided if divided in fitting else fitting[0]
        if len(fitting) > 1:
            logger.warning(
                "nothing says which attention these weights are of: taken for %s; it could be %s",
                guessed["attention_type"],
                " or ".join(s for s in fitting if s != guessed["attention_type"]),
            )
    elif said["attention_type"] not in ATTENTION_REGISTRY:
        raise ValueError(f"no attention scheme is called {said['attention_type']!r:.60}")
    return guessed


def _fitting(state: Mapping[str, Tensor]) -> list[str]:
    """Return those of `schemes_of` that have a time_embed if the weights have, and only then."""
    return [s for s in schemes_of(state) if _ordered(s) == ("time_embed" in state)]


def _ordered(scheme: str) -> bool:
    return ATTENTION_REGISTRY.get(scheme).one_sequence_per_clip
