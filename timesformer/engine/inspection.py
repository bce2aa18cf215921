"""What is in a file of weights or a run's checkpoint, if it is sound, how two of them differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from timesformer.config.defaults import get_cfg
from timesformer.engine.resume import SILENT, stored_keys
from timesformer.models.weights.averaged import chosen
from timesformer.models.weights.bundle import bundle_of
from timesformer.models.weights.folders import READ_OF_RUN
from timesformer.models.weights.formats import native_state
from timesformer.models.weights.sources import read_all
from timesformer.utils.checkpoint import Place, former_checkpoints, numbered_checkpoints
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import is_file, is_folder, is_in_parts, stored_size
from timesformer.utils.tensors import raw_bytes, stored_bytes
from timesformer.utils.torch_file import check_digest, is_of_storage, stored_digest

_APART = ("optimizer_state", "cfg", READ_OF_RUN)
_SETS = ("model_state", "ema_state", "optimizer_state")  # of tensors in a checkpoint of a run
_OF_PLACE = ("measured", "environment")  # times and machines, which two runs alike don't share


class DamagedError(WeightsError):
    """A file that isn't what was written, or no file of weights."""


class Found(NamedTuple):
    """What a source holds.

    Attributes:
        about: it in plain values, see `describe`.
        weights: by native names, where their layout is known.
        gathered: numbers and tensors beside the weights, by place: the optimizer's, and a moving
            average or what it is of, whichever isn't taken for the weights.
        config: keys that it was trained with.
        rest: what else is in the file, by key.
    """

    about: dict[str, Any]
    weights: dict[str, Tensor]
    gathered: dict[str, Any]
    config: dict[str, Any]
    rest: dict[str, Any]


def damaged_checkpoints(run: Path) -> tuple[list[Path], dict[str, str]]:
    """Return a run's checkpoints, and what is wrong with those that are damaged, by name.

    Raises:
        WeightsError: storage doesn't give one.
    """
    paths, wrong = former_checkpoints(run), {}
    for path in paths:
        try:
            check_digest(path, required=True)
        except WeightsError as error:
            if isinstance(error.__cause__, OSError):
                raise
            wrong[path.name] = str(error).removeprefix(f"{path}: ")
    return paths, wrong


def _is_stored(path: str) -> bool:
    return is_file(path) or is_in_parts(path)


def find(source: str) -> Found:
    """Read a source, whatever `read_weights` takes, and sort what is in it.

    Raises:
        DamagedError: it is there and can't be what was written.
        WeightsError: there is no such source, or it can't be read.
    """
    path = Path(source)
    if _is_stored(source):
        try:
            check_digest(path, required=False)
        except WeightsError as error:
            if isinstance(error.__cause__, OSError):
                raise
            raise DamagedError(str(error)) from error
    if is_folder(source) and numbered_checkpoints(path):
        paths, wrong = damaged_checkpoints(path)
        if len(wrong) == len(paths):
            raise DamagedError(f"{path}: all {len(paths)} checkpoints of this run are damaged")
    try:
        content = read_all(source)
    except WeightsError as error:
        if _is_stored(source) and not is_of_storage(error):
            raise DamagedError(str(error)) from error
        raise
    try:
        return _sorted(source, content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # one that holds itself
        raise DamagedError(f"{source}: no file of weights ({error})") from error


def _sorted(source: str, content: Mapping[str, Any]) -> Found:
    read = str(content.get(READ_OF_RUN, source))
    ours = _is_stored(read) and "architecture" in content and "epoch" in content
    if ours and not stored_digest(read):
        raise DamagedError(
            f"{source}: carries no digest, as a run's checkpoint does: it is damaged, or another "
            "program wrote it"
        )
    taken = chosen(source, content, None)
    weights, _ = native_state(taken)
    beside = {
        name: content[name]
        for name in _SETS
        if name in content and content[name] is not taken.get("model_state")
    }
    rest = {key: value for key, value in content.items() if not _tensors(value)}
    about = describe(source, content, weights) | {"average": "ema_state" in content}
    gathered = dict(_leaves(beside))
    about["not_finite"] += [name for name, value in gathered.items() if not _finite(value)]
    return Found(
        about,
        {str(name): value for name, value in weights.items() if isinstance(value, Tensor)},
        gathered,
        stored_keys(content),
        {str(key): value for key, value in rest.items() if key not in _APART},
    )


def describe(
    source: str, content: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return what a file holds, as plain values that JSON can say.

    Args:
        source: it is called so.
        content: what `read_weights` read.
        weights: those in it.
    """
    read = str(content.get(READ_OF_RUN, source))
    file, epoch = Path(read), content.get("epoch")
    about: dict[str, Any] = {"file": read, "bytes": None, "digest": ""}
    if _is_stored(read):
        about |= {"bytes": stored_size(file), "digest": stored_digest(file)}
    if isinstance(epoch, int):
        about["after"] = str(Place(epoch + 1, content.get("step", 0)))
    if isinstance(validation := content.get("validation"), Mapping):
        about["validation"] = {k: v for k, v in validation.items() if k != "list"}
    about |= _of_model(source, content)
    tensors = [value for value in weights.values() if isinstance(value, Tensor)]
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in tensors})
    about |= {
        "weights": len(tensors),
        "parameters": sum(t.numel() for t in tensors if t.is_floating_point()),
        "dtype": ", ".join(kinds),
        "not_finite": [name for name, value in weights.items() if not _finite(value)],
    }
    optimizer = content.get("optimizer_state")
    if isinstance(optimizer, Mapping) and _tensors(optimizer):
        about["optimizer"] = {
            "method": stored_keys(content).get("SOLVER.OPTIMIZING_METHOD"),
            "gathers": sorted({n.rpartition(".")[2] for n, v in _leaves(optimizer)
                               if isinstance(v, Tensor)}),
            "bytes": stored_bytes(optimizer),
        }  # fmt: skip
    about["class_names"] = list(content.get("class_names") or ())
    about["train_list"] = content.get("train_list", "")
    about["preprocessing"] = dict(content.get("preprocessing") or {})
    default = dict(get_cfg().leaves())
    config = stored_keys(content)
    about["config"] = {key: value for key, value in config.items() if value != default[key]}
    return about


def _of_model(source: str, content: Mapping[str, Any]) -> dict[str, Any]:
    try:
        architecture = bundle_of(chosen(source, content, None), source).architecture
    except WeightsError as error:  # its weights may still be looked at
        return {"model": f"not known ({str(error).removeprefix(f'{source}: ')})"}
    name = f"{architecture.model}, {architecture.attention_type}"
    return {"model": name, "architecture": architecture.to_json()}


def differences(a: Found, b: Found, only_weights: bool = False) -> dict[str, Any]:
    """Return in what two sources differ; parts that are the same to the bit are empty.

    Args:
        a: one of them.
        b: the other.
        only_weights: of the weights alone.

    Returns:
        `weights` and `gathered`: a line for each name that differs; `config`: both values by key,
        and `elsewhere` those keys that say nothing about the numbers; `rest`: keys.
    """
    found: dict[str, Any] = {"weights": _differing(a.weights, b.weights)}
    if only_weights:
        return found
    config = {
        key: [a.config.get(key), b.config.get(key)]
        for key in sorted(a.config.keys() | b.config.keys())
        if a.config.get(key) != b.config.get(key)
    }
    rest = [
        key
        for key in sorted(a.rest.keys() | b.rest.keys())
        if key not in _OF_PLACE and _differing(*({key: f.rest.get(key)} for f in (a, b)))
    ]
    return found | {
        "gathered": _differing(a.gathered, b.gathered),
        "config": {key: values for key, values in config.items() if key not in SILENT},
        "rest": rest,
        "elsewhere": {key: values for key, values in config.items() if key in SILENT},
    }


def are_equal(differing: Mapping[str, Any]) -> bool:
    """Whether what `differences` returned says that nothing differs that counts."""
    return not any(value for part, value in differing.items() if part != "elsewhere")


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    """Return what differs between two mappings, in words, by name."""
    lines = {}
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in a or name not in b:
            lines[name] = f"only in the {'first' if name in a else 'second'}"
        elif why := _difference(a[name], b[name]):
            lines[name] = why
    return lines


def _difference(a: Any, b: Any) -> str:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return "" if type(a) is type(b) and a == b else f"{a!r:.60} and {b!r:.60}"
    if a.shape != b.shape or a.dtype != b.dtype:
        kinds = (f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (a, b))
        return " and ".join(kinds)
    if raw_bytes(a) == raw_bytes(b):
        return ""
    # In double precision: the difference of two numbers of low precision may be none of it.
    gap = (a.double() - b.double()).abs()
    differ = int((gap != 0).sum())  # NaN differs from NaN here
    largest = float(gap.max())
    if not differ:
        return "by the sign of zeros, or what stands for NaN"
    what = f"{largest:.3g}" if math.isfinite(largest) else "not finite"
    return f"max abs {what}, {differ:,} of {a.numel():,} numbers"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield tensors and plain values within mappings and lists, with their places."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | Tensor) for v in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{place}.{i}")
    elif value is not None or place:
        yield place, value


def _tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for _, leaf in _leaves(value))


def _finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())
