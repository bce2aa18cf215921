"""Safetensors files, read so that storage which fails is an error, and nothing worse."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

# What json and safetensors raise for content that isn't what it says it is.
NO_SAFETENSORS = (
    *(ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError),
)


def tensor_by_tensor(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a safetensors file, whose parts stand one behind the other.

    Not by a map of the file into memory, which ends the process where storage fails, nor by its
    bytes as a whole, which would stand there beside the tensors: each is read as a small file.

    Args:
        file: at any place.

    Raises:
        Exception: one of `NO_SAFETENSORS`, of content that isn't what it says it is.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    size -= 8 + length  # of all tensors
    if size < 0:
        raise ValueError("it is shorter than its header says")
    header, at = json.loads(file.read(length)), 0
    state: dict[str, Tensor] = {}
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if not at == begin <= end <= size:
            raise ValueError(f"{name:.80} doesn't follow the tensor before it")
        alone = json.dumps({name: entry | {"data_offsets": [0, end - begin]}}).encode()
        small_file = len(alone).to_bytes(8, "little") + alone + file.read(end - begin)
        state |= safetensors.torch.load(small_file)
        at = end
    if at != size:
        raise ValueError("there is something behind its tensors")
    return header, state
