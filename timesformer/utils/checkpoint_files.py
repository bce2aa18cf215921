"""Names and places of a run's checkpoints: which there are, which is the newest, which may go."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from timesformer.utils.errors import WeightsError
from timesformer.utils.files import remove

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint_epoch_(\d+)(?:_step_(\d+))?(?:\.pyth)?")
BEST = "checkpoint_best.pyth"
WITHIN_EPOCH = 2  # the second newest is there should the newest be damaged


def get_checkpoint_dir(path_to_job: str | Path) -> Path:
    """OUTPUT_DIR/checkpoints."""
    return Path(path_to_job) / "checkpoints"


def make_checkpoint_dir(path_to_job: str | Path) -> Path:
    """Make OUTPUT_DIR/checkpoints and return it."""
    folder = get_checkpoint_dir(path_to_job)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Place(NamedTuple):
    """How far a run has come: whole epochs, and optimizer steps of the next one."""

    epochs: int
    steps: int = 0

    def __str__(self) -> str:
        if self.steps:
            return f"step {self.steps} of epoch {self.epochs + 1}"
        return f"epoch {self.epochs}"


def get_path_to_checkpoint(
    path_to_job: str | Path, epoch: int, steps: int = 0, in_parts: bool = False
) -> Path:
    """File of the checkpoint after `epoch` epochs and so many steps of the next; or its folder."""
    within = f"_step_{steps:07d}" if steps else ""
    name = f"checkpoint_epoch_{epoch:05d}{within}" + ("" if in_parts else ".pyth")
    return get_checkpoint_dir(path_to_job) / name


def get_path_to_best(path_to_job: str | Path) -> Path:
    """File of the checkpoint that did best in validation."""
    return get_checkpoint_dir(path_to_job) / BEST


def numbered_checkpoints(path_to_job: str | Path) -> list[Path]:
    """Files, and folders, of epochs and of steps within them, the newest first, sound or not."""
    paths = get_checkpoint_dir(path_to_job).glob("*")
    found = [(place, path) for path in paths if (place := place_of(path)) is not None]
    return [path for _, path in sorted(found, reverse=True)]


def get_last_checkpoint(path_to_job: str | Path) -> Path | None:
    """Newest sound checkpoint, by its name, or None; damaged newer ones are named in the log.

    Raises:
        WeightsError: storage doesn't give the newest; that says nothing about what is in it.
    """
    # Who only looks which there are doesn't wait for torch.
    from timesformer.utils.torch_file import check_digest

    for path in numbered_checkpoints(path_to_job):
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
    """Delete the checkpoints of epochs before the last `keep` up to `newest`; 0 keeps them all.

    Those within an epoch go once there are `WITHIN_EPOCH` newer ones of either kind. Files of later
    places are damaged, or the run would have gone on from them: they don't count.
    """
    paths = numbered_checkpoints(path_to_job)
    if newest not in paths:
        return
    paths = paths[paths.index(newest) :]
    epochs = [path for path in paths if epoch_of(path) is not None]
    within = [path for path in paths[WITHIN_EPOCH:] if epoch_of(path) is None]
    for path in within + (epochs[keep:] if keep else []):
        remove(path)


def former_checkpoints(path_to_job: str | Path) -> list[Path]:
    """Numbered files and the best one, as far as they are there, sound or not."""
    best = get_path_to_best(path_to_job)
    return [*numbered_checkpoints(path_to_job), *([best] if best.exists() else [])]


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


def place_of(path: Path) -> Place | None:
    """Return how far the run had come, by the name of a checkpoint; None for another name."""
    match = _NAME.fullmatch(path.name)
    return Place(int(match[1]), int(match[2] or 0)) if match else None


def epoch_of(path: Path) -> int | None:
    """Return how many epochs were done, by the name of a checkpoint of whole epochs, else None."""
    place = place_of(path)
    return place.epochs if place and not place.steps else None


def check_name(path: Path, content: Mapping[str, Any]) -> None:
    """Make sure that a file of an epoch or step holds that one: the newest is found by name.

    Raises:
        WeightsError: it doesn't.
    """
    named, epoch = place_of(path), content.get("epoch")
    if named is None or not isinstance(epoch, int):
        return
    held = Place(epoch + 1, content.get("step", 0))
    if held != named:
        raise WeightsError(
            f"{path}: holds {held}, which its name doesn't say: rename it, or move it "
            "out of the folder"
        )
