"""Tensors as bytes, and copied; and whether those read from a file are what training makes."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from timesformer.utils.eight_bit import fitting_8bit_state, is_eight_bit
from timesformer.utils.errors import WeightsError

_WHOLE = ("num_batches_tracked", "relative_position_index")
_EXPANDED = 1 << 26
"""Bytes that a weight may take by repeating fewer numbers, before anybody copies it."""


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor's numbers, row by row, e.g. for a digest."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors within mappings and lists, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner)


def stored_bytes(value: Any) -> int:
    """Return the bytes of all numbers that stand behind the tensors within a value, each once."""
    storages = [tensor.untyped_storage() for tensor in tensors_in(value)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


class HostCopies:
    """Copies of states in host memory, which training doesn't change any more.

    Tensors that share numbers go on sharing them, so a copy is stored as its original would be. The
    memory is used again for the next one: getting it anew takes longer than the copying.
    """

    def __init__(self) -> None:
        self._storages: dict[tuple[torch.device, int, int], torch.UntypedStorage] = {}

    def of(self, value: Any) -> Any:
        """Return a copy of mappings and lists with tensors; the one before is no longer valid."""
        before, self._storages = self._storages, {}

        def copied(value: Any) -> Any:
            if isinstance(value, Tensor):
                return tensor(value)
            if isinstance(value, dict):
                fresh = copy.copy(value)  # of its own type, with what is attached to it
                for key, inner in value.items():
                    fresh[key] = copied(inner)
                return fresh
            if isinstance(value, list | tuple):
                return type(value)(copied(inner) for inner in value)
            return value

        def tensor(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            key = (value.device, storage.data_ptr(), storage.nbytes())
            if key not in self._storages:
                room = before.pop(key, None)
                self._storages[key] = torch.UntypedStorage(key[2]) if room is None else room
                self._storages[key].copy_(storage)
            fresh = torch.empty(0, dtype=value.dtype)
            return fresh.set_(
                self._storages[key], value.storage_offset(), value.size(), value.stride()
            )

        return copied(value)


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and bytes of all weights."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(raw_bytes(value))
    return digest.hexdigest()


def all_finite(tensor: Tensor) -> bool:
    """Say whether all numbers of a tensor of floating-point numbers are finite.

    Least and greatest tell, for a NaN becomes both: one look at each number, where `isfinite` makes
    several tensors of its size.
    """
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def check_tensors(path: object, state: Mapping[str, Any]) -> None:
    """Refuse weights that no training makes: not finite, or not of floating point.

    Counters of normalisation layers and Video Swin's tables of places are whole numbers.

    Raises:
        WeightsError: naming the first such weight.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            kind = str(value.layout) if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(f"{path}: {name} is no plain tensor ({kind})")
        if value.is_meta:
            raise WeightsError(f"{path}: {name} has a shape, but no numbers")
        size = value.numel() * value.element_size()
        if size > max(value.untyped_storage().nbytes(), _EXPANDED):
            raise WeightsError(
                f"{path}: {name} says it is {tuple(value.shape)}, and fewer numbers are stored"
            )
        if str(name).endswith(_WHOLE) and value.dtype == torch.long:
            continue
        if not value.is_floating_point() or value.itemsize < 2:  # torch can't compute with 8 bits
            raise WeightsError(
                f"{path}: {name} is of {value.dtype}; weights are floating-point numbers of 16 "
                "bits or more"
            )
        if not all_finite(value):
            raise WeightsError(f"{path}: {name} has values that are not finite (NaN or infinity)")


# What an optimizer gathers for a parameter, by its kind; "step" is one number, the others are of
# the parameter's shape. SGD gathers nothing without momentum.
_GATHERED: dict[type[torch.optim.Optimizer], tuple[set[str], set[str]]] = {
    torch.optim.SGD: (set(), {"momentum_buffer"}),
    torch.optim.Adam: ({"step", "exp_avg", "exp_avg_sq"}, set()),
    torch.optim.AdamW: ({"step", "exp_avg", "exp_avg_sq"}, set()),
}


def fitting_state(path: object, saved: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a state that the optimizer can load: what was gathered, and its own settings.

    torch compares no shapes, and a fused step then reads beyond the end of a tensor.

    Raises:
        WeightsError: it is another method's, of other parameters, or damaged.
    """
    if is_eight_bit(optimizer):
        return fitting_8bit_state(path, saved, optimizer)
    wrong = f"{path}: its optimizer state doesn't fit SOLVER.OPTIMIZING_METHOD or the model"
    own = optimizer.state_dict()["param_groups"]
    if not isinstance(saved, Mapping):
        raise WeightsError(f"{wrong} (it is a {type(saved).__name__})")
    try:
        groups, gathered = saved["param_groups"], saved["state"]
        ids = [[*group["params"]] for group in groups]
        if [len(i) for i in ids] != [len(group["params"]) for group in own]:
            raise WeightsError(f"{wrong} (it has parameters in groups of {[len(i) for i in ids]})")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        needed, optional = _GATHERED[type(optimizer)]
        for number, parameter in zip([i for group in ids for i in group], parameters, strict=True):
            kept = gathered.get(number, {})
            if not (needed <= kept.keys() <= needed | optional) and kept:
                raise WeightsError(f"{wrong} (it has {', '.join(map(str, sorted(kept)))})")
            for name, value in kept.items():
                if value is None and name in optional:
                    continue
                shape = torch.Size() if name == "step" else parameter.shape
                if not isinstance(value, Tensor) or value.shape != shape:
                    raise WeightsError(f"{wrong} ({name} isn't of shape {tuple(shape)})")
                check_tensors(path, {f"optimizer state {name}": value})
        if not gathered.keys() <= {i for group in ids for i in group}:
            raise WeightsError(f"{wrong} (it has more parameters)")
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{wrong} ({type(error).__name__})") from error
    settings = [mine | {"params": i} for mine, i in zip(own, ids, strict=True)]
    return {"state": gathered, "param_groups": settings}
