"""One file of weights: torch's, safetensors, .npz, Caffe2's .pkl; nothing in it is ever run.

What is in a file decides how it is read, not its name. Storage that fails for a moment is waited
for, see `persistently`.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from timesformer.models.weights.formats import google_npz
from timesformer.models.weights.pickled_arrays import is_pickled_dict, read_pickled
from timesformer.utils.checkpoint import read_checkpoint
from timesformer.utils.errors import WeightsError
from timesformer.utils.npz import NPZ_DAMAGE
from timesformer.utils.retry import persistently
from timesformer.utils.safetensors_file import NO_SAFETENSORS, tensor_by_tensor

HEADER = "timesformer"
"""Key of a .safetensors file's header that has what config.json has in a folder."""

SAID = ("architecture", "arguments", "preprocessing", "class_names")
"""What config.json, or that header, may say of the weights."""

_MOST_PACKED = 200
"""How many times as large as its file an .npz may become; weights hardly pack, zeros do."""

_header_2 = np.lib.format.read_array_header_2_0


def read_file(path: Path) -> Mapping[str, Any]:
    """Read one file onto the CPU.

    Raises:
        WeightsError: it can't be read, or isn't a file of weights.
    """
    try:
        content = persistently(lambda: _read_plain(path), path)
    except OSError as error:
        raise WeightsError(f"{path}: can't read it ({error.strerror or error})") from error
    return read_checkpoint(path) if content is None else content


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file.

    Raises:
        WeightsError: if the file isn't JSON, or holds no object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(persistently(path.read_bytes, path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def _read_plain(path: Path) -> Mapping[str, Any] | None:
    """Read a file that holds arrays and nothing else; None for another, which torch may know.

    Raises:
        OSError: the system can't read it.
        WeightsError: it isn't what it begins as.
    """
    with path.open("rb") as file:
        head = file.read(9)
        # A safetensors file begins with the length of its header, 8 bytes, and the header's "{".
        if path.suffix == ".safetensors" or head[8:] == b"{":
            return _read_safetensors(path, file)
        if path.suffix == ".npz" or _is_npz(file):
            return _read_npz(path, file)
        if is_pickled_dict(head):
            return read_pickled(path, file)
    return None


def _read_safetensors(path: Path, file: BinaryIO) -> Mapping[str, Any]:
    try:
        header, state = tensor_by_tensor(file)
        said = (header.get("__metadata__") or {}).get(HEADER)
        if said is None:
            return state
        if not isinstance(said := json.loads(said), dict):
            raise ValueError(f"its header says {said!r:.60}, not an object")
    except NO_SAFETENSORS as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    return {"state_dict": state} | {key: said[key] for key in SAID if key in said}


def _is_npz(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except NPZ_DAMAGE:
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        _check_sizes(file)
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            state = {name: _tensor(archive[name]) for name in archive.files}
    except NPZ_DAMAGE as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path}: not a readable .npz file of plain arrays "
            f"({reason[0].split('allow_pickle')[0].strip()})"
        ) from error

    heads = google_npz.num_heads(state)
    return {"state_dict": state, "arguments": {"num_heads": heads}} if heads else state


def _check_sizes(file: BinaryIO) -> None:
    """Compare the size that each array's header asks for with what is stored, before it is read.

    Raises:
        ValueError: an array isn't as large as it says, or is packed beyond what weights can be.
    """
    budget = file.seek(0, 2) * _MOST_PACKED
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            budget -= member.file_size
            if budget < 0:
                raise ValueError(f"unpacked it is over {_MOST_PACKED} times as large")
            with archive.open(member) as array:
                version = np.lib.format.read_magic(array)
                old = version == (1, 0)
                header = np.lib.format.read_array_header_1_0 if old else _header_2
                shape, _, dtype = header(array)
                size = math.prod(shape) * dtype.itemsize
                if min(shape, default=0) < 0 or size != member.file_size - array.tell():
                    raise ValueError(f"{member.filename} isn't as large as it says")


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # how numpy stores JAX's bfloat16
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(array)
