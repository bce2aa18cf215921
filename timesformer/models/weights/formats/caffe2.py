"""Caffe2's SlowFast, Slow and I3D, which PySlowFast's model zoo links as .pkl, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from timesformer.models.weights.formats import pyslowfast
from timesformer.models.weights.formats.names import put

CONTAINER = "blobs"
_STEM = "conv1_w"
_BLOCK = re.compile(r"(t_)?res(\d)_(\d+)_branch(1|2[abc])_(bn_)?(\w+)")
_FUSION = re.compile(r"t_(?:pool1|res(\d)_\d+_branch2c_bn)_subsample_(bn_)?(\w+)")
_STEM_OR_HEAD = re.compile(r"(t_)?(conv1_|res_conv1_bn_|pred_)(\w+)")
_NONLOCAL = re.compile(r"nonlocal_conv(\d)_(\d+)_(\w+)")
_PARTS = {"w": "weight", "b": "bias"}
_PARTS_OF_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_BESIDE = re.compile(r"\w+_momentum|lr|model_iter")  # of the optimizer


def matches(state: Mapping[str, Any]) -> bool:
    """Whether these are the names of such a network."""
    return _STEM in state and any(_BLOCK.fullmatch(key) for key in state)


def preprocessing(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what the models of the zoo take: what PySlowFast gives them."""
    return pyslowfast.preprocessing(state)


def apart(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights, and the names of what the optimizer had beside them."""
    weights = {key: value for key, value in state.items() if not _BESIDE.fullmatch(key)}
    return weights, [key for key in state if key not in weights]


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; a name that isn't known stays, and loading will report it.

    Raises:
        ValueError: two entries have one name.
    """
    native: dict[str, Tensor] = {}
    for key, value in state.items():
        put(native, _name(key) or key, value, key)
    return native


def _name(key: str) -> str:
    """Return our name, or ""."""
    if match := _FUSION.fullmatch(key):
        stage, norm, part = match.groups()
        return _joined(f"s{stage or 1}_fuse.", "bn" if norm else "conv_f2s", norm, part)
    if match := _BLOCK.fullmatch(key):
        fast, stage, block, layer, norm, part = match.groups()
        layer = "branch1" if layer == "1" else f"branch2.{layer[1]}"
        layer += "_bn" if norm else ""
        return _joined(f"s{stage}.pathway{int(bool(fast))}_res{block}.", layer, norm, part)
    if match := _STEM_OR_HEAD.fullmatch(key):
        fast, layer, part = match.groups()
        if layer == "pred_":
            return _joined("", "head.projection", "", part)
        norm = "bn" if layer == "res_conv1_bn_" else ""
        return _joined(f"s1.pathway{int(bool(fast))}_stem.", norm or "conv", norm, part)
    if match := _NONLOCAL.fullmatch(key):  # no model has them: named so that it is said
        return f"s{match[1]}.pathway0_nonlocal{match[2]}.{match[3]}"
    return ""


def _joined(prefix: str, layer: str, norm: str | None, part: str) -> str:
    name = (_PARTS_OF_NORM if norm else _PARTS).get(part)
    return f"{prefix}{layer}.{name}" if name else ""
