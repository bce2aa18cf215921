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

from timesformer.models.weights.formats.names import put

# Longest first: the name of the patch kernel tells which of them stands before all names.
_PREFIXES = ("opt/target/img/", "params/img/", "img/", "opt/target/", "params/", "")
_PATCH = "embedding/kernel"
_RESNET = ("conv_root/", "gn_root/", "block1/")
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(\w+?)_(\d+)/(.+)")
_STACKED = "Transformer/encoderblock/"  # all blocks in one array, when they ran in a scan

# Positions of patches alone are called this; with one of CLS, as Google had them at first, they
# are a part of the Transformer.
_POSITIONS = "pos_embedding"
_OLD_POSITIONS = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding")

IGNORED = ("MAPHead_0/",)
"""big_vision's attention-pooling head."""


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a ViT's names in Google's layout."""
    return any(prefix + _PATCH in state for prefix in _PREFIXES)


def apart(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the ViT, without the prefix of its names, and the names of what stands beside it.

    That is an optimizer's state, the time that training took, a text tower and its loss.
    """
    prefix = next(prefix for prefix in _PREFIXES if prefix + _PATCH in state)
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]


def num_heads(state: Mapping[str, Tensor]) -> int:
    """Return the number of heads A, which the shapes of kernels (D, A, D/A) say; 0 if none do."""
    if not matches(state):
        return 0
    kernels = [
        value
        for key, value in apart(state)[0].items()
        if "encoderblock" in key and key.endswith("/query/kernel") and value.ndim in (3, 4)
    ]
    return kernels[0].shape[-2] if kernels else 0


def preprocessing(_: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what Google's ViTs take: pixels in [-1, 1], RGB."""
    return {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}


def has_positions_of_patches(theirs: Mapping[str, Tensor]) -> bool:
    """Whether positions are of patches alone, or may be: one more than a square has is for CLS."""
    return _POSITIONS in theirs


def to_native(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of ours; a name that isn't known stays, and loading will report it.

    Args:
        theirs: the ViT as `apart` returns it.

    Raises:
        ValueError: for a hybrid with a ResNet stem, or a part of a block that is missing, there
            twice, or not a plain ViT's.
    """
    if any(key.startswith(_RESNET) for key in theirs):
        raise ValueError(
            "a hybrid ViT with a ResNet stem: only plain ViTs, which cut patches by one "
            "convolution, can be loaded; take e.g. ViT-B_16.npz"
        )
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
                if tail not in _ATTENTION:
                    raise ValueError(f"{key}: not a part of a plain ViT's attention")
                put(attention.setdefault(i, {}), tail, value, key)
            else:
                name = f"blocks.{i}.{_block_name(part, number, tail, key)}"
                put(native, name, _transposed(value), key)
        elif name := _stem_name(key):
            put(native, name, value if value.ndim == 3 else _transposed(value), key)
        else:
            put(native, key, value, key)
    for i, parts in attention.items():
        native |= {f"blocks.{i}.attn.{name}": value for name, value in _attention(parts, i).items()}
    return native


def _unstack(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(L, …) arrays of all blocks -> one array for each block."""
    single = {key: value for key, value in theirs.items() if not key.startswith(_STACKED)}
    for key in (key for key in theirs if key.startswith(_STACKED)):
        tail = key.removeprefix(_STACKED)
        for i, value in enumerate(theirs[key]):
            put(single, f"Transformer/encoderblock_{i}/{tail}", value, key)
    return single


def _stem_name(key: str) -> str:
    """Our name of an entry outside the blocks, or ''."""
    if key in (_POSITIONS, *_OLD_POSITIONS):
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


_ATTENTION = {f"{of}/{x}" for of in ("query", "key", "value", "out") for x in ("kernel", "bias")}


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
