"""Checkpoints of a run: where they lie, what is in them, how they are restored.

The layout is the published one (epoch, model_state, optimizer_state, cfg as YAML text) and more
keys beside it; `torch_file` makes the files safe.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.utils.errors import UserError, WeightsError
from timesformer.utils.tensors import check_tensors, fitting_state
from timesformer.utils.torch_file import check_digest, read_checkpoint, write_checkpoint

__all__ = [
    "bare",
    "check_name",
    "differences",
    "epoch_checkpoints",
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
    "prune_checkpoints",
    "read_checkpoint",
    "restore",
    "save_checkpoint",
    "set_aside_checkpoints",
    "write_checkpoint",
]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint_epoch_(\d+)\.pyth")
BEST = "checkpoint_best.pyth"
MAX_EPOCHS = 10**6  # more than any run has


def get_checkpoint_dir(path_to_job: str | Path) -> Path:
    """OUTPUT_DIR/checkpoints."""
    return Path(path_to_job) / "checkpoints"


def make_checkpoint_dir(path_to_job: str | Path) -> Path:
    """Make OUTPUT_DIR/checkpoints and return it."""
    folder = get_checkpoint_dir(path_to_job)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get_path_to_checkpoint(path_to_job: str | Path, epoch: int) -> Path:
    """File of the checkpoint after `epoch` epochs."""
    return get_checkpoint_dir(path_to_job) / f"checkpoint_epoch_{epoch:05d}.pyth"


def get_path_to_best(path_to_job: str | Path) -> Path:
    """File of the checkpoint that did best in validation."""
    return get_checkpoint_dir(path_to_job) / BEST


def epoch_checkpoints(path_to_job: str | Path) -> list[Path]:
    """Files of epochs, the newest first, sound or not."""
    paths = get_checkpoint_dir(path_to_job).glob("*")
    found = [(epoch, path) for path in paths if (epoch := epoch_of(path)) is not None]
    return [path for _, path in sorted(found, reverse=True)]


def get_last_checkpoint(path_to_job: str | Path) -> Path | None:
    """Newest sound checkpoint by epoch, or None; damaged newer ones are named in the log.

    Raises:
        WeightsError: storage doesn't give the newest; that says nothing about what is in it.
    """
    for path in epoch_checkpoints(path_to_job):
        try:
            check_digest(path, required=True)
        except WeightsError as error:
            if isinstance(error.__cause__, OSError):
                raise WeightsError(f"{error}: wait for its storage, or move it away") from error
            logger.warning("%s; falling back to the checkpoint before", error)
        else:
            return path
    return None


def prune_checkpoints(path_to_job: str | Path, keep: int, newest: Path) -> None:
    """Delete the checkpoints before the last `keep` up to `newest`; 0 keeps them all.

    Files of later epochs are damaged, or the run would have gone on from them: they don't count.
    """
    paths = epoch_checkpoints(path_to_job)
    if keep and newest in paths:
        for path in paths[paths.index(newest) + keep :]:
            path.unlink(missing_ok=True)


def former_checkpoints(path_to_job: str | Path) -> list[Path]:
    """Files of epochs and the best one, as far as they are there, sound or not."""
    best = get_path_to_best(path_to_job)
    return [*epoch_checkpoints(path_to_job), *([best] if best.exists() else [])]


def set_aside_checkpoints(path_to_job: str | Path, but: str | Path = "") -> Path | None:
    """Move a former run's checkpoints into a folder of their own, and return it; None: no such.

    Args:
        path_to_job: OUTPUT_DIR.
        but: a file that stays, if it is among them.
    """
    paths = former_checkpoints(path_to_job)
    paths = [path for path in paths if path.exists() and path.resolve() != Path(but).resolve()]
    if not paths:
        return None
    home = get_checkpoint_dir(path_to_job)
    numbers = itertools.count(1)
    folder = next(f for n in numbers if not (f := home / f"before_{n}").exists())
    folder.mkdir()
    for path in paths:
        path.rename(folder / path.name)
    return folder


def has_checkpoint(path_to_job: str | Path) -> bool:
    """Whether there is a sound checkpoint to resume from."""
    return get_last_checkpoint(path_to_job) is not None


def epoch_of(path: Path) -> int | None:
    """Return how many epochs were done, by the name of a checkpoint; None for another name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def check_name(path: Path, content: Mapping[str, Any]) -> None:
    """Make sure that a file of an epoch holds that epoch: the newest is found by name.

    Raises:
        WeightsError: it doesn't.
    """
    named, epoch = epoch_of(path), content.get("epoch")
    if named is not None and isinstance(epoch, int) and epoch + 1 != named:
        raise WeightsError(
            f"{path}: holds epoch {epoch + 1}, which its name doesn't say: rename it, or move it "
            "out of the folder"
        )


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
    best: bool = False,
    **extra: Any,
) -> Path:
    """Write the checkpoint of a finished epoch (from 0), or the best one, and return its path."""
    path = get_path_to_best(path_to_job) if best else get_path_to_checkpoint(path_to_job, epoch + 1)
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
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch < MAX_EPOCHS:
        raise WeightsError(f"{path}: its epoch is {epoch!r:.40}, not a number of epochs")
    if differing := differences(target.state_dict(), state):
        raise WeightsError(f"{path}: made by another model: " + "; ".join(differing))
    check_tensors(path, state)
    if optimizer is not None:
        gathered = fitting_state(path, content.get("optimizer_state"), optimizer)
        optimizer.load_state_dict(gathered)
    target.load_state_dict(state)
    return epoch


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
