"""Checkpoints of a run: what is in them, how they are restored.

The layout is the published one (epoch, model_state, optimizer_state, cfg as YAML text) and more
keys beside it; `torch_file` makes the files safe, `checkpoint_files` knows where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.utils.checkpoint_files import (
    BEST,
    Place,
    check_name,
    epoch_of,
    former_checkpoints,
    get_checkpoint_dir,
    get_last_checkpoint,
    get_path_to_best,
    get_path_to_checkpoint,
    has_checkpoint,
    make_checkpoint_dir,
    numbered_checkpoints,
    place_of,
    prune_checkpoints,
    set_aside_checkpoints,
)
from timesformer.utils.errors import UserError, WeightsError
from timesformer.utils.tensors import check_tensors, fitting_state
from timesformer.utils.torch_file import read_checkpoint, write_checkpoint

__all__ = [
    "BEST",
    "Place",
    "bare",
    "check_name",
    "contents",
    "differences",
    "epoch_of",
    "former_checkpoints",
    "get_checkpoint_dir",
    "get_last_checkpoint",
    "get_path_to_best",
    "get_path_to_checkpoint",
    "has_checkpoint",
    "is_checkpoint_epoch",
    "load_checkpoint",
    "load_test_checkpoint",
    "load_train_checkpoint",
    "make_checkpoint_dir",
    "numbered_checkpoints",
    "path_to_save",
    "place_of",
    "prune_checkpoints",
    "read_checkpoint",
    "restore",
    "save_checkpoint",
    "set_aside_checkpoints",
    "write_checkpoint",
]

MAX_NUMBER = 10**9  # more epochs, or steps in one, than any run has


def is_checkpoint_epoch(cfg: CfgNode, cur_epoch: int) -> bool:
    """Whether epoch `cur_epoch` (from 0) ends with a checkpoint (TRAIN.CHECKPOINT_PERIOD)."""
    return (cur_epoch + 1) % cfg.TRAIN.CHECKPOINT_PERIOD == 0


def bare(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel and torch.compile wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def differences(own: Mapping[str, Tensor], state: Mapping[str, Any]) -> list[str]:
    """Every name and shape in which `state` differs from a model's own, in order of names."""

    def shape(value: Any) -> str:
        return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__

    lines = [f"{k}: missing in the file, {shape(own[k])} in the model" for k in own.keys() - state]
    lines += [f"{k}: {shape(state[k])} in the file, not in the model" for k in state.keys() - own]
    lines += [
        f"{k}: {shape(state[k])} in the file, {shape(own[k])} in the model"
        for k in own.keys() & state
        if shape(own[k]) != shape(state[k])
    ]
    return sorted(lines)


def save_checkpoint(
    path_to_job: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    cfg: CfgNode,
    *,
    step: int = 0,
    best: bool = False,
    **extra: Any,
) -> Path:
    """Write the checkpoint of a finished epoch (from 0), or the best one, and return its path.

    With `step`, of so many steps of the next epoch too: `epoch` is -1 within the first.
    """
    path = path_to_save(path_to_job, epoch, step, best)
    write_checkpoint(path, contents(model, optimizer, epoch, cfg, step=step, **extra))
    return path


def path_to_save(
    path_to_job: str | Path, epoch: int, step: int = 0, best: bool = False, in_parts: bool = False
) -> Path:
    """Return where `save_checkpoint` writes, or where a checkpoint in parts goes."""
    if best:
        return get_path_to_best(path_to_job)
    return get_path_to_checkpoint(path_to_job, epoch + 1, step, in_parts)


def contents(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    cfg: CfgNode,
    *,
    step: int = 0,
    **extra: Any,
) -> dict[str, Any]:
    """Return what `save_checkpoint` writes; its tensors are those that training changes."""
    payload = {
        "epoch": epoch,
        "model_state": bare(model).state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "cfg": cfg.dump(),
    }
    return payload | ({"step": step} if step else {}) | extra


def load_checkpoint(
    path_to_checkpoint: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> int:
    """Load all weights, and the optimizer's state if there is one, and return the epoch.

    Raises:
        WeightsError: if the file can't be read; or lists every key and shape that differs.
    """
    content = read_checkpoint(path_to_checkpoint)
    return restore(path_to_checkpoint, content, model, optimizer)


def restore(
    path: str | Path,
    content: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> int:
    """Do what `load_checkpoint` does with the content of a file, named `path` in messages.

    Learning rate, weight decay and the like stay the optimizer's own; the checkpoint gives what it
    has gathered. Nothing is changed if anything doesn't fit.

    Raises:
        WeightsError: as `load_checkpoint`.
    """
    state, epoch, target = content.get("model_state"), content.get("epoch"), bare(model)
    if not isinstance(state, dict) or "epoch" not in content:
        raise WeightsError(
            f"{path}: not a training checkpoint (it lacks model_state or epoch); to start from its "
            "weights alone, set TRAIN.FINETUNE True"
        )
    step = content.get("step", 0)
    if not _is_number(step):
        raise WeightsError(f"{path}: its step is {step!r:.40}, not a number of steps")
    if not _is_number(epoch, -1 if step else 0):
        raise WeightsError(f"{path}: its epoch is {epoch!r:.40}, not a number of epochs")
    if differing := differences(target.state_dict(), state):
        raise WeightsError(f"{path}: made by another model: " + "; ".join(differing))
    check_tensors(path, state)
    if optimizer is not None:
        gathered = fitting_state(path, content.get("optimizer_state"), optimizer)
        optimizer.load_state_dict(gathered)
    target.load_state_dict(state)
    return epoch


def _is_number(value: object, least: int = 0) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < MAX_NUMBER


def load_train_checkpoint(*args: Any, **kwargs: Any) -> NoReturn:
    """Say where this published function is now: it knows recipes, which this module doesn't.

    Raises:
        UserError: always.
    """
    raise _moved("start", "load_train_checkpoint(cfg, model, optimizer)")


def load_test_checkpoint(*args: Any, **kwargs: Any) -> NoReturn:
    """Say where this published function is now, as `load_train_checkpoint` does.

    Raises:
        UserError: always.
    """
    raise _moved("tested", "load_test_checkpoint(cfg, model)")


def _moved(module: str, call: str) -> UserError:
    return UserError(f"utils.checkpoint.{call} is timesformer.engine.{module}.{call} here")
