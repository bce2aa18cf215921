"""mmaction2's TimeSformer, by the names in its checkpoints.

Its divided block counts attention steps: attentions.0 is time and ends in temporal_fc,
attentions.1 is space, and each step holds its norm. The blocks of its other two schemes have one
step, and their norms apart. Projections are those of torch.nn.MultiheadAttention, whose rows are
ordered as ours are: query, key, value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from timesformer.models.architecture import Architecture
from timesformer.models.weights.formats.names import put

_BLOCK = re.compile(r"transformer_layers\.layers\.(\d+)\.(.+)")
_STEM = {
    "backbone.cls_token": "cls_token",
    "backbone.pos_embed": "pos_embed",
    "backbone.time_embed": "time_embed",
    "backbone.patch_embed.projection.weight": "patch_embed.proj.weight",
    "backbone.patch_embed.projection.bias": "patch_embed.proj.bias",
    "backbone.norm.weight": "norm.weight",
    "backbone.norm.bias": "norm.bias",
    "cls_head.fc_cls.weight": "head.weight",
    "cls_head.fc_cls.bias": "head.bias",
}

IGNORED = ("data_preprocessor.",)
"""Mean and std of the pixels, which aren't weights."""


def _names(modules: dict[str, str]) -> dict[str, str]:
    """Theirs -> ours inside a block, for every weight and bias."""
    names = {}
    for theirs, ours in modules.items():
        between = "_" if theirs.endswith("in_proj") else "."
        for kind in ("weight", "bias"):
            names[f"{theirs}{between}{kind}"] = f"{ours}.{kind}"
    return names


_MLP = {"ffns.0.layers.0.0": "mlp.fc1", "ffns.0.layers.1": "mlp.fc2"}
_DIVIDED = _names(
    {
        "attentions.0.norm": "temporal_norm1",
        "attentions.0.attn.in_proj": "temporal_attn.qkv",
        "attentions.0.attn.out_proj": "temporal_attn.proj",
        "attentions.0.temporal_fc": "temporal_fc",
        "attentions.1.norm": "norm1",
        "attentions.1.attn.in_proj": "attn.qkv",
        "attentions.1.attn.out_proj": "attn.proj",
        "ffns.0.norm": "norm2",
        **_MLP,
    }
)
_ONE_STEP = _names(
    {
        "norms.0": "norm1",
        "attentions.0.attn.in_proj": "attn.qkv",
        "attentions.0.attn.out_proj": "attn.proj",
        "norms.1": "norm2",
        **_MLP,
    }
)


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of mmaction2's transformer."""
    return any("transformer_layers.layers." in key for key in state)


def preprocessing(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what its models take: pixels in [-1, 1], RGB; its files carry no statistics."""
    said: dict[str, Any] = {"channel_order": "RGB"}
    for name in ("mean", "std"):
        stored = state.get(f"data_preprocessor.{name}")
        values = stored.flatten().tolist() if isinstance(stored, Tensor) else [127.5] * 3
        said[name] = [value / 255 for value in values]
    return said


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; a name that isn't known stays, and loading will report it.

    Raises:
        ValueError: two entries have one name.
    """
    divided = any(".attentions.1." in key for key in state)
    blocks = _DIVIDED if divided else _ONE_STEP
    native: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _BLOCK.fullmatch(key.removeprefix("backbone."))
        if match and match[2] in blocks:
            name = f"blocks.{match[1]}.{blocks[match[2]]}"
        else:
            # A backbone that was saved alone has no prefix.
            name = _STEM.get(key) or _STEM.get(f"backbone.{key}") or key
        put(native, name, value, key)
    return native


def check(architecture: Architecture) -> None:
    """Make sure that theirs computes the same; names alone don't tell.

    Raises:
        ValueError: naming the difference.
    """
    scheme = architecture.attention_type
    if scheme not in ("divided_space_time", "joint_space_time", "space_only"):
        raise ValueError(f"mmaction2's TimeSformer has no {scheme} attention")
    for option, plain in (("cls_in_time", False), ("tubelet_size", 1)):
        if getattr(architecture, option) != plain:
            raise ValueError(f"mmaction2's TimeSformer has no {option}")


def from_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their names, as in the `state_dict` of a checkpoint of theirs.

    Raises:
        ValueError: if the model has parts that theirs lacks.
    """
    divided = any(".temporal_fc." in key for key in state)
    blocks = {ours: theirs for theirs, ours in (_DIVIDED if divided else _ONE_STEP).items()}
    stem = {ours: theirs for theirs, ours in _STEM.items()}
    native = {}
    for key, value in state.items():
        block, number, inner = (*key.split(".", 2), "", "")[:3]
        if key in stem:
            native[stem[key]] = value
        elif block == "blocks" and inner in blocks:
            native[f"backbone.transformer_layers.layers.{number}.{blocks[inner]}"] = value
        else:
            raise ValueError(f"mmaction2's TimeSformer has no {key}")
    if missing := (stem.keys() - {"time_embed", "head.weight", "head.bias"}) - state.keys():
        raise ValueError(f"mmaction2's TimeSformer needs {', '.join(sorted(missing))}")
    return native
