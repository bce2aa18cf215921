"""Dicts of arrays that were pickled, as Caffe2's weights are; nothing in them is ever run.

Of all that a pickle can call, only an array of plain numbers is known here, by stand-ins of our
own; what else it names is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from timesformer.models.weights.formats.caffe2 import CONTAINER
from timesformer.utils.errors import WeightsError

_KINDS = ("f2", "f4", "f8", "i4", "i8")


def is_pickled_dict(head: bytes) -> bool:
    """Whether a file begins as the pickle of a dict; torch's begin with a number."""
    return head[:1] == b"\x80" and head[2:3] == b"}"


def read_pickled(path: Path, file: BinaryIO) -> Mapping[str, Any]:
    """Read the arrays of a pickle of Caffe2.

    Raises:
        OSError: the system can't read it.
        WeightsError: it is damaged, or holds anything else.
    """
    file.seek(0)
    try:
        content = _Arrays(file, encoding="latin1").load()
        if not isinstance(content, dict) or not isinstance(content.get(CONTAINER), dict):
            raise ValueError(f"it has no {CONTAINER!r}")
        return {CONTAINER: {str(k): _tensor(v) for k, v in content[CONTAINER].items()}}
    except OSError:
        raise
    except Exception as error:  # what a pickle is made of decides what is raised
        raise WeightsError(
            f"{path}: not a readable .pkl of Caffe2's arrays ({str(error) or 'cut short'!s:.200}); "
            "other pickles aren't read, as they can run code: save weights by torch.save"
        ) from error


class _Kind:
    """What numpy.dtype leaves in a pickle."""

    order = "="

    def __init__(self, kind: str, *_: Any) -> None:
        if kind not in _KINDS:
            raise ValueError(f"an array of {kind!r:.20}")
        self.kind = kind

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]
        if self.order not in ("<", ">", "="):
            raise ValueError(f"numbers in the order {self.order!r:.20}")


class _Array:
    """What an array leaves in a pickle."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, data = state
        if not isinstance(kind, _Kind):
            raise ValueError("an array that isn't of numbers")
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(raw, dtype=kind.order + kind.kind)
        self.array = flat.reshape(shape, order="F" if by_column else "C")


def _scalar(kind: _Kind, data: str | bytes) -> _Array:
    scalar = _Array()
    scalar.__setstate__((1, (), kind, False, data))
    return scalar


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # Python 3 writes bytes so in protocol 2


# numpy's modules were called by other names.
_KNOWN: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    **{
        (module, name): stand_in
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, stand_in in (("_reconstruct", lambda *_: _Array()), ("scalar", _scalar))
    },
}


class _Arrays(pickle.Unpickler):
    """Reads dicts, numbers, texts and arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of what a pickle names.

        Raises:
            UnpicklingError: it has none.
        """
        if known := _KNOWN.get((module, name)):
            return known
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def _tensor(value: Any) -> Tensor | Any:
    if not isinstance(value, _Array):
        return value
    array = value.array
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
