"""Checkpoints in parts (TRAIN.SHARDED_CHECKPOINTS): folders, into which ranks write what they have.

The parts are safetensors files of torch.distributed.checkpoint, each piece with its place in the
whole tensor; `checkpoint.json` has all that isn't a tensor, and the SHA-256 of every part and of
itself. No file holds code, as the `.metadata` of that library's own format could. The folder gets
its name when all is there, so it is whole, as a checkpoint's file is, and is read as one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from timesformer.utils.distributed import from_main, gather_objects, get_rank, is_main, together
from timesformer.utils.errors import UserError, WeightsError
from timesformer.utils.files import (
    MANIFEST,
    add_to_digest,
    open_regular,
    remove,
    sweep,
    sync_folder,
    temporary_of,
)
from timesformer.utils.retry import persistently
from timesformer.utils.safetensors_file import NO_SAFETENSORS, tensor_by_tensor

T = TypeVar("T")

STATES = ("model_state", "ema_state")
"""Keys of a checkpoint whose tensors are in the parts, beside those of `optimizer_state`."""

_FORMAT = 1
_OPTIMIZER = "optimizer_state"
_PLACES, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"  # torch's names, in the header of a part


def write_parts(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint, so that `path` always is whole, the old one or the new; on all ranks.

    Args:
        path: the folder; it must be the same on all nodes.
        payload: what a checkpoint's file would hold, with the parts that this rank has.

    Raises:
        WeightsError: on all ranks, if it can't be written; an earlier one stays.
    """
    tensors, rest = _apart(payload)
    folder = Path(from_main(str(temporary_of(path))))
    try:
        together(lambda: _make(folder) if is_main() else None)
        _save(tensors, folder)
        names = sorted(folder.glob(f"shard-{get_rank() + 1:05d}-*.safetensors"))
        own = together(lambda: {name.name: _facts(name) for name in names})
        parts = {name: facts for found in gather_objects(own) for name, facts in found.items()}
        shapes = {name: list(value.shape) for name, value in tensors.items()}
        manifest = {"format": _FORMAT, "parts": parts, "tensors": shapes, "content": rest}
        together(lambda: _finish(folder, path, manifest) if is_main() else None)
    except (OSError, UserError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        disk = next(folder for folder in path.absolute().parents if folder.is_dir())
        raise WeightsError(
            f"{path}: can't write the checkpoint ({why}): {shutil.disk_usage(disk).free:,} bytes "
            "are free; earlier checkpoints are intact"
        ) from error
    finally:
        if is_main():
            shutil.rmtree(folder, ignore_errors=True)


def _apart(payload: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a checkpoint by names of their own, and the rest of it."""
    tensors = {
        f"{state}.{name}": value
        for state in STATES
        for name, value in payload.get(state, {}).items()
    }
    optimizer = payload[_OPTIMIZER]
    tensors |= {
        f"{_OPTIMIZER}.{number}.{what}": value
        for number, kept in optimizer["state"].items()
        for what, value in kept.items()
        if value is not None
    }
    rest = {key: value for key, value in payload.items() if key not in (*STATES, _OPTIMIZER)}
    rest["param_groups"] = optimizer["param_groups"]
    return {name: value.detach() for name, value in tensors.items()}, rest


def _together_again(tensors: dict[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `_apart`."""
    content = dict(rest)
    groups = [
        {
            key: tuple(x) if isinstance(x, list) and key != "params" else x
            for key, x in group.items()
        }
        for group in content.pop("param_groups")
    ]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        key, _, within = name.partition(".")
        if key == _OPTIMIZER:
            number, _, what = within.partition(".")
            state.setdefault(int(number), {})[what] = value
        elif key in STATES:
            content.setdefault(key, {})[within] = value
        else:
            raise ValueError(f"{name:.80} is of no state")
    content[_OPTIMIZER] = {"state": state, "param_groups": groups}
    return content


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)  # of a save of this process that failed
    folder.mkdir()


def _save(tensors: dict[str, Tensor], folder: Path) -> None:
    """Let every rank write its pieces into one file, synced to the disk.

    Raises:
        OSError: on all ranks, if one can't.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # torch's own, 2.10
            checkpoint.save(dict(tensors), storage_writer=writer)
    except checkpoint.CheckpointException as error:
        for problem, _ in error.failures.values():
            if isinstance(problem, OSError):
                raise problem from error
        raise


def _facts(part: Path) -> list[Any]:
    """Return the SHA-256 of a file, and its bytes."""
    digest = hashlib.sha256()
    with open_regular(part) as file:
        add_to_digest(digest, file)
        return [digest.hexdigest(), file.tell()]


def _finish(folder: Path, path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, and give the folder its name, in place of what has it."""
    text = json.dumps(manifest, indent=1)
    text = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n" + text
    with (folder / MANIFEST).open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    remove(path)
    folder.rename(path)
    sync_folder(path.parent)


class _Manifest(NamedTuple):
    digest: str
    parts: Mapping[str, Sequence[Any]]
    shapes: Mapping[str, Sequence[int]]
    content: Mapping[str, Any]


def _manifest(path: Path) -> _Manifest:
    """Read the manifest, and hold it against its own digest.

    Raises:
        OSError: it can't be read.
        WeightsError: it is gone or damaged.
    """
    try:
        with open_regular(path / MANIFEST) as file:
            first, _, text = file.read().partition(b"\n")
    except FileNotFoundError:
        raise WeightsError(f"{path}: a folder without {MANIFEST}: no checkpoint") from None
    damaged = WeightsError(f"{path}: damaged ({MANIFEST} isn't what was written)")
    try:
        digest = json.loads(first)["sha256"]
        if hashlib.sha256(text).hexdigest() != digest:
            raise damaged
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise WeightsError(f"{path}: of a later version: its format is {said['format']!r:.40}")
        parts, shapes, content = said["parts"], said["tensors"], said["content"]
        for name, (_, size) in parts.items():
            if name != Path(name).name or "\\" in name or not isinstance(size, int):
                raise damaged
        if not isinstance(content, dict) or not isinstance(shapes, dict):
            raise damaged
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise damaged from error
    return _Manifest(digest, parts, shapes, content)


def stored_digest(path: Path) -> str:
    """Return the SHA-256 of the manifest, which has those of the parts; "" if it can't be read."""
    with contextlib.suppress(OSError, WeightsError):
        return _manifest(path).digest
    return ""


def check_parts(path: Path) -> None:
    """Compare all files with their digests.

    Raises:
        WeightsError: one is gone or damaged, or can't be read.
    """
    _read(path, _checked)


def read_parts(path: Path) -> dict[str, Any]:
    """Read all of a checkpoint onto the CPU, as `read_checkpoint` reads a file; on one rank.

    Raises:
        WeightsError: it is damaged, or can't be read.
    """
    return _read(path, _content)


def _read(path: Path, work: Callable[[Path], T]) -> T:
    try:
        return persistently(lambda: work(path), path)
    except FileNotFoundError as error:  # says something about the checkpoint, not about storage
        raise WeightsError(f"{path}: damaged ({Path(error.filename).name} is gone)") from None
    except OSError as error:
        raise WeightsError(f"{path}: can't read the checkpoint ({error.strerror})") from error


def _checked(path: Path) -> _Manifest:
    manifest = _manifest(path)
    for name, facts in manifest.parts.items():
        if _facts(path / name) != facts:
            raise WeightsError(f"{path}: damaged (the digest of {name} doesn't match it)")
    return manifest


def _content(path: Path) -> dict[str, Any]:
    manifest = _checked(path)
    pieces: dict[str, dict[int, Tensor]] = {name: {} for name in manifest.shapes}
    try:
        for part in manifest.parts:
            with open_regular(path / part) as file:
                header, tensors = tensor_by_tensor(file)
            places = json.loads(header["__metadata__"][_PLACES])
            for name, piece in tensors.items():
                place = [*places[name][_OFFSETS]]
                if any(place[1:]):
                    raise ValueError(f"{name:.80} is in pieces other than rows")
                if piece.numel() or not pieces[name]:
                    pieces[name][place[0] if place else 0] = piece
        whole = {name: _joined(name, pieces.pop(name), s) for name, s in manifest.shapes.items()}
        return _together_again(whole, manifest.content)
    except (*NO_SAFETENSORS, IndexError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a readable checkpoint in parts ({error})") from error


def _joined(name: str, pieces: Mapping[int, Tensor], shape: Sequence[int]) -> Tensor:
    """Make a whole tensor of its rows; there must be none too few, and none twice."""
    rows = [pieces[place] for place in sorted(pieces)]
    at = 0
    for place, piece in sorted(pieces.items()):
        if place != at:
            raise ValueError(f"{name:.80} lacks rows")
        at += len(piece) if piece.ndim else 1
    whole = rows[0] if len(rows) == 1 else torch.cat(rows)
    if list(whole.shape) != list(shape):
        raise ValueError(f"{name:.80} is {tuple(whole.shape)}, and was {tuple(shape)}")
    return whole
