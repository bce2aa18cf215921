"""Google's ViTs: the .npz files of ImageNet-21K and augreg, and those of big_vision.

Kernels are stored as (inputs…, outputs…), attention with its heads apart. Letters: D width, A
heads, P patch side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Longest first: the name of the patch kernel tells which of them stands before all names.
_PREFIXES = ("params/img/", "img/", "opt/target/", "params/", "")
_PATCH = "embedding/kernel"
_RESNET = ("conv_root/", "gn_root/", "block1/")
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(\w+?)_(\d+)/(.+)")
_STACKED = "Transformer/encoderblock/"  # all blocks in one array, when they ran in a scan

IGNORED = ("MAPHead_0/", "params/t", "params/b", "opt/", "txt/")
"""big_vision's attention-pooling head, SigLIP's text tower and loss, an optimizer's state."""


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a ViT's names in Google's layout."""
    return any(prefix + _PATCH in state for prefix in _PREFIXES)


def num_heads(state: Mapping[str, Tensor]) -> int:
    """Return the number of heads A, which the shapes of kernels (D, A, D/A) say; 0 if none do."""
    kernels = [
        value
        for key, value in state.items()
        if "encoderblock" in key and key.endswith("/query/kernel") and value.ndim in (3, 4)
    ]
    return kernels[0].shape[-2] if kernels else 0


def preprocessing(_: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what Google's ViTs take: pixels in [-1, 1], RGB."""
    return {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of ours; what isn't the ViT's keeps its name (see `IGNORED`).

    Raises:
        ValueError: for a hybrid with a ResNet stem, or if a part of the ViT is missing.
    """
    prefix = next(prefix for prefix in _PREFIXES if prefix + _PATCH in state)
    theirs = {key.removeprefix(prefix): value for key, value in state.items()}
    if any(key.startswith(_RESNET) for key in theirs):
        raise ValueError(
            "a hybrid ViT with a ResNet stem: only plain ViTs, which cut patches by one "
            "convolution, can be loaded; take e.g. ViT-B_16.npz"
        )
    if prefix == "img/":  # the text tower's scale and bias, as files with params/ call them
        theirs = {f"params/{key}" if key in ("t", "b") else key: v for key, v in theirs.items()}
    theirs = _unstack(theirs)
    kernel = theirs[_PATCH]
    if kernel.ndim == 2:  # rows are in the order (P, P, 3)
        side = math.isqrt(kernel.shape[0] // 3)
        if side * side * 3 == kernel.shape[0]:
            theirs[_PATCH] = kernel.reshape(side, side, 3, -1)
    native: dict[str, Tensor] = {}
    attention: dict[int, dict[str, Tensor]] = {}
    for key, value in theirs.items():
        if match := _BLOCK.fullmatch(key):
            i, part, number, tail = int(match[1]), match[2], match[3], match[4]
            if part == "MultiHeadDotProductAttention":
                attention.setdefault(i, {})[tail] = value
            else:
                native[f"blocks.{i}.{_block_name(part, number, tail, key)}"] = _transposed(value)
        elif name := _stem_name(key):
            native[name] = value if value.ndim == 3 else _transposed(value)
        else:
            native[key] = value
    for i, parts in attention.items():
        native |= {f"blocks.{i}.attn.{name}": value for name, value in _attention(parts, i).items()}
    return native


def _unstack(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """(L, …) arrays of all blocks -> one array for each block."""
    stacked = [key for key in theirs if key.startswith(_STACKED)]
    for key in stacked:
        tail = key.removeprefix(_STACKED)
        for i, value in enumerate(theirs.pop(key)):
            theirs[f"Transformer/encoderblock_{i}/{tail}"] = value
    return theirs


def _stem_name(key: str) -> str:
    """Our name of an entry outside the blocks, or ''."""
    if key in (
        "Transformer/posembed_input/pos_embedding",
        "Transformer/pos_embedding",
        "pos_embedding",
    ):
        return "pos_embed"
    if key == "cls":
        return "cls_token"
    module, _, tail = key.rpartition("/")
    modules = {
        "embedding": "patch_embed.proj",
        "Transformer/encoder_norm": "norm",
        "head": "head",
        "pre_logits": "pre_logits.fc",
    }
    tails = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    return f"{modules[module]}.{tails[tail]}" if module in modules and tail in tails else ""


def _block_name(part: str, number: str, tail: str, key: str) -> str:
    """Our name inside a block; modules are numbered 0, 2, 3 or, in big_vision, 0, 1, 0."""
    names = {
        "scale": "weight",
        "bias": "bias",
        "Dense_0/kernel": "fc1.weight",
        "Dense_0/bias": "fc1.bias",
        "Dense_1/kernel": "fc2.weight",
        "Dense_1/bias": "fc2.bias",
    }
    if part in ("LayerNorm", "MlpBlock") and tail in names:
        module = "mlp" if part == "MlpBlock" else "norm1" if number == "0" else "norm2"
        return f"{module}.{names[tail]}"
    raise ValueError(f"{key}: not a part of a plain ViT's block")


def _transposed(value: Tensor) -> Tensor:
    """Turn a kernel (P, P, 3, D) -> (D, 3, P, P), or (inputs, outputs) -> (outputs, inputs)."""
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value


def _attention(parts: dict[str, Tensor], block: int) -> dict[str, Tensor]:
    """Kernels (D, A, D/A) of query, key, value and (A, D/A, D) of the output -> qkv and proj."""
    try:
        kernels = [parts[f"{name}/kernel"].flatten(1).T for name in ("query", "key", "value")]
        biases = [parts[f"{name}/bias"].flatten() for name in ("query", "key", "value")]
        return {
            "qkv.weight": torch.cat(kernels),
            "qkv.bias": torch.cat(biases),
            "proj.weight": parts["out/kernel"].flatten(0, 1).T,
            "proj.bias": parts["out/bias"],
        }
    except KeyError as error:
        raise ValueError(f"attention of encoderblock_{block} lacks {error.args[0]}") from error
