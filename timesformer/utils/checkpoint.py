"""Checkpoint files: written atomically, with a digest; read without running code in them.

The layout is the published one (epoch, model_state, optimizer_state, cfg as YAML text) and more
keys beside it. The file is a plain torch file; its SHA-256 stands in the comment of the zip
archive, because torch.load itself doesn't notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.utils.errors import WeightsError

logger = logging.getLogger(__name__)

_MARK = b"timesformer-sha256:"
_COMMENT = len(_MARK) + 64
_NAME = re.compile(r"checkpoint_epoch_(\d+)\.pyth")


def get_checkpoint_dir(path_to_job: str | Path) -> Path:
    """OUTPUT_DIR/checkpoints."""
    return Path(path_to_job) / "checkpoints"


def make_checkpoint_dir(path_to_job: str | Path) -> Path:
    """Makes OUTPUT_DIR/checkpoints and returns it."""
    folder = get_checkpoint_dir(path_to_job)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get_path_to_checkpoint(path_to_job: str | Path, epoch: int) -> Path:
    """File of the checkpoint after `epoch` epochs."""
    return get_checkpoint_dir(path_to_job) / f"checkpoint_epoch_{epoch:05d}.pyth"


def get_last_checkpoint(path_to_job: str | Path) -> Path | None:
    """Newest sound checkpoint by epoch, or None; damaged newer ones are named in the log."""
    found = [
        (int(match[1]), path)
        for path in get_checkpoint_dir(path_to_job).glob("*")
        if (match := _NAME.fullmatch(path.name))
    ]
    for _, path in sorted(found, reverse=True):
        try:
            _verified_bytes(path, require_digest=True)
        except WeightsError as error:
            logger.warning("%s; falling back to the checkpoint before", error)
        else:
            return path
    return None


def has_checkpoint(path_to_job: str | Path) -> bool:
    """Whether there is a sound checkpoint to resume from."""
    return get_last_checkpoint(path_to_job) is not None


def is_checkpoint_epoch(cfg: CfgNode, cur_epoch: int) -> bool:
    """Whether epoch `cur_epoch` (from 0) ends with a checkpoint (TRAIN.CHECKPOINT_PERIOD)."""
    return (cur_epoch + 1) % cfg.TRAIN.CHECKPOINT_PERIOD == 0


def write_checkpoint(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Writes `payload` with a digest, so that `path` always is a whole file, the old or the new.

    Raises:
        WeightsError: if the file can't be written, e.g. on a full disk; an earlier file stays.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(dict(payload), buffer)
    body = bytearray(buffer.getbuffer())
    # The archive ends in a 22-byte record whose last two bytes are the length of the comment.
    body[-2:] = struct.pack("<H", _COMMENT)
    comment = _MARK + hashlib.sha256(body).hexdigest().encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(".*.tmp"):
            stale.unlink()
        with temporary.open("wb") as file:
            file.write(body)
            file.write(comment)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        raise WeightsError(
            f"{path}: can't write the checkpoint ({error.strerror}): it needs "
            f"{len(body) + _COMMENT:,} bytes, {free:,} are free; earlier checkpoints are intact"
        ) from error


def _verified_bytes(path: str | Path, require_digest: bool) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: can't read the checkpoint ({error.strerror})") from error
    body, comment = data[:-_COMMENT], data[-_COMMENT:]
    if comment.startswith(_MARK):
        if comment[len(_MARK) :] != hashlib.sha256(body).hexdigest().encode():
            raise WeightsError(f"{path}: damaged (its digest doesn't match its content)")
    elif require_digest:
        raise WeightsError(f"{path}: damaged or not written by this program (it has no digest)")
    return data


def read_checkpoint(path: str | Path, require_digest: bool = False) -> dict[str, Any]:
    """Reads a torch file onto the CPU, weights only: code in it is refused, never run.

    Args:
        path: the file.
        require_digest: refuse files without a digest; one that is there is always checked.

    Raises:
        WeightsError: if the file is missing, damaged, or holds more than plain data.
    """
    data = _verified_bytes(path, require_digest)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from UnpicklingError to KeyError here
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{path}: not a readable weights file ({reason[0]})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return content


def bare(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def save_checkpoint(
    path_to_job: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    cfg: CfgNode,
    **extra: Any,
) -> Path:
    """Writes the checkpoint of a finished epoch (from 0) and returns its path."""
    path = get_path_to_checkpoint(path_to_job, epoch + 1)
    payload = {
        "epoch": epoch,
        "model_state": bare(model).state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "cfg": cfg.dump(),
    }
    write_checkpoint(path, payload | extra)
    return path


def load_checkpoint(
    path_to_checkpoint: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> int:
    """Loads all weights, and the optimizer's state if there is one, and returns the epoch.

    Raises:
        WeightsError: if the file can't be read; or lists every key and shape that differs.
    """
    content = read_checkpoint(path_to_checkpoint)
    state = content.get("model_state")
    if not isinstance(state, dict) or "epoch" not in content:
        raise WeightsError(
            f"{path_to_checkpoint}: not a training checkpoint (it lacks model_state or epoch); to "
            "start from its weights alone, set TRAIN.FINETUNE True"
        )
    target = bare(model)
    own = target.state_dict()
    differing = [f"{k}: missing in the file" for k in own.keys() - state.keys()]
    differing += [f"{k}: not in the model" for k in state.keys() - own.keys()]
    differing += [
        f"{k}: {tuple(state[k].shape)} in the file, {tuple(own[k].shape)} in the model"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    if differing:
        raise WeightsError(
            f"{path_to_checkpoint}: made by another model: " + "; ".join(sorted(differing))
        )
    target.load_state_dict(state)
    if optimizer is not None:
        try:
            optimizer.load_state_dict(content["optimizer_state"])
        except (KeyError, ValueError) as error:
            raise WeightsError(
                f"{path_to_checkpoint}: its optimizer state doesn't fit SOLVER.OPTIMIZING_METHOD "
                "or the model; to start anew from its weights, set TRAIN.CHECKPOINT_EPOCH_RESET "
                "True"
            ) from error
    return int(content["epoch"])
