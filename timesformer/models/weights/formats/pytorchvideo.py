"""pytorchvideo's SlowFast, Slow, I3D and X3D, by the names in its model zoo.

Its blocks are counted through the network, poolings included; ours, PySlowFast's, are stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from timesformer.models.weights.formats import pyslowfast
from timesformer.models.weights.formats.names import put

_STAGE = re.compile(r"blocks\.(\d+)\.(?:multipathway_blocks\.(\d)\.)?res_blocks\.(\d+)\.(.+)")
_OTHER = re.compile(r"blocks\.(\d+)\.(.+)")
_IN_BLOCK = (
    ("branch1_conv.", "branch1."),
    ("branch1_norm.", "branch1_bn."),
    # X3D's second norm is the first of two modules, and squeeze and excitation the other.
    ("branch2.norm_b.0.", "branch2.b_bn."),
    ("branch2.norm_b.1.block.0.", "branch2.se.fc1."),
    ("branch2.norm_b.1.block.2.", "branch2.se.fc2."),
    *((f"branch2.conv_{letter}.", f"branch2.{letter}.") for letter in "abc"),
    *((f"branch2.norm_{letter}.", f"branch2.{letter}_bn.") for letter in "abc"),
)
_STEM = (
    ("conv.conv_t.", "conv_xy."),  # X3D's two are called by each other's names
    ("conv.conv_xy.", "conv."),
    ("conv.", "conv."),
    ("norm.", "bn."),
)
_FUSION = (
    ("multipathway_fusion.conv_fast_to_slow.", "conv_f2s."),
    ("multipathway_fusion.norm.", "bn."),
)
_HEAD = (
    ("proj.", "head.projection."),
    ("pool.pre_conv.", "head.conv_5."),
    ("pool.pre_norm.", "head.conv_5_bn."),
    ("pool.post_conv.", "head.lin_5."),
)


def matches(state: Mapping[str, Any]) -> bool:
    """Whether these are the names of pytorchvideo's residual networks."""
    return any(_STAGE.fullmatch(key) for key in state)


def preprocessing(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what the models of its zoo take; they were trained by PySlowFast."""
    return pyslowfast.preprocessing(state)


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; a name that isn't known stays, and loading will report it.

    Raises:
        ValueError: two entries have one name.
    """
    blocks = sorted({int(match[1]) for key in state if (match := _STAGE.fullmatch(key))})
    stage_of = {block: f"s{stage}" for stage, block in enumerate(blocks, start=2)}
    native: dict[str, Tensor] = {}
    for key, value in state.items():
        put(native, _name(key, stage_of), value, key)
    return native | _identity_norm(native)


def _name(key: str, stage_of: Mapping[int, str]) -> str:
    if match := _STAGE.fullmatch(key):
        number, pathway, block, inner = match.groups()
        stage = stage_of[int(number)]
        return f"{stage}.pathway{pathway or 0}_res{block}.{_renamed(inner, _IN_BLOCK) or inner}"
    if not (match := _OTHER.fullmatch(key)):
        return key
    number, inner = int(match[1]), match[2]
    if fusion := _renamed(inner, _FUSION):
        return f"s{number + 1}_fuse.{fusion}"
    pathway = 0
    if inner.startswith("multipathway_blocks."):
        pathway, inner = int(inner.split(".")[1]), inner.split(".", 2)[2]
    if number == 0 and (stem := _renamed(inner, _STEM)):
        return f"s1.pathway{pathway}_stem.{stem}"
    return _renamed(inner, _HEAD) or key


def _renamed(inner: str, names: tuple[tuple[str, str], ...]) -> str:
    """Return a name with its beginning changed; "" for one that begins otherwise."""
    for theirs, ours in names:
        if inner.startswith(theirs):
            return ours + inner.removeprefix(theirs)
    return ""


def _identity_norm(native: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the norms of shortcuts that keep their channels, which X3D has none of there.

    One of mean 0 and variance 1 - eps leaves its input as it is, while it isn't trained.
    """
    made: dict[str, Tensor] = {}
    for key, value in native.items():
        norm = f"{key.removesuffix('.weight')}_bn."
        if key.endswith(".branch1.weight") and f"{norm}weight" not in native:
            ones = torch.ones(value.shape[0])
            variance = ones - 1e-5
            for name, tensor in (
                ("weight", ones),
                ("bias", 0 * ones),
                ("running_mean", 0 * ones),
                ("running_var", variance),
                ("num_batches_tracked", torch.tensor(0)),
            ):
                made[norm + name] = tensor
    return made
