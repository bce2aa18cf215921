"""Checkpoints on their way to the disk: written while training goes on, and disks that are full.

Training waits until its state is copied to host memory, and for a write that is still under way;
a thread of the main process writes. What depends on a file being there, a test or the end of the
run, waits for it.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.engine.ema import Ema
from timesformer.engine.interruption import Interruption
from timesformer.utils.checkpoint import (
    BEST,
    bare,
    former_checkpoints,
    get_checkpoint_dir,
    prune_checkpoints,
)
from timesformer.utils.checkpoint_files import WITHIN_EPOCH
from timesformer.utils.eight_bit import gathered_bytes, is_eight_bit
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import remove, stored_size
from timesformer.utils.logging import get_logger
from timesformer.utils.stopping import asked
from timesformer.utils.tensors import HostCopies, stored_bytes
from timesformer.utils.text import counted
from timesformer.utils.torch_file import write_checkpoint

logger = get_logger(__name__)

AGAIN = 600.0  # seconds after which a checkpoint that couldn't be written is due again
LAST_TRIES, LAST_PAUSE = 20, 30.0  # for the last one of a run, and seconds between them
ROOM = 1.05  # a file is a little more than its numbers


class Saver:
    """Writes the checkpoints of a run, one after the other; for the main process alone.

    As a context it waits at its end for the one that is being written.

    Attributes:
        last: the run's last checkpoint is tried again and again, by somebody who says so.
        superseded: checkpoints of what isn't of this run any more: of later steps of an epoch that
            begins again, the best of later epochs. They go as soon as there is one of its own.

    Args:
        cfg: reads TRAIN.CHECKPOINT_ASYNC, ON_FAILED_SAVE, KEEP_CHECKPOINTS, and OUTPUT_DIR.
        interruption: is told when a checkpoint that couldn't be written is due again.
    """

    def __init__(self, cfg: CfgNode, interruption: Interruption) -> None:
        self.output, self.keep = cfg.OUTPUT_DIR, cfg.TRAIN.KEEP_CHECKPOINTS
        self.goes_on = cfg.TRAIN.ON_FAILED_SAVE == "go_on"
        self.interruption = interruption
        self.copies = HostCopies() if cfg.TRAIN.CHECKPOINT_ASYNC else None
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None  # ends the run
        self.unsaved = ""  # why the newest checkpoint isn't there
        self.lost_best = False
        self.last = False
        self.superseded: Sequence[Path] = ()

    def save(self, path: Path, payload: Mapping[str, Any]) -> None:
        """Write a checkpoint, or begin to.

        Raises:
            WeightsError: it can't be written, or the one before couldn't, and the run is to stop.
        """
        self.wait()
        if self.copies is None:
            self._write(path, payload)
            self.wait()
        else:
            copied = self.copies.of(payload)
            self.thread = threading.Thread(target=self._write, args=(path, copied), daemon=True)
            self.thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            WeightsError: what was written last couldn't be, and the run is to stop.
        """
        if self.thread:
            self.thread.join()
            self.thread = None
        if self.error:
            error, self.error = self.error, None
            raise error

    def settled(self) -> str:
        """Return why the newest checkpoint isn't there, once it could be; "" if it is.

        Raises:
            WeightsError: as `wait`.
        """
        self.wait()
        return self.unsaved

    def take_lost_best(self) -> bool:
        """Tell, once, whether the best checkpoint couldn't be written.

        Raises:
            WeightsError: as `wait`.
        """
        self.wait()
        lost, self.lost_best = self.lost_best, False
        return lost

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is KeyboardInterrupt:  # ends at once; what is half written has no name yet
            return
        try:
            self.wait()
        except Exception as unwritten:
            if error is None:
                raise
            logger.warning("%s", unwritten)

    def written(self, path: Path, problem: WeightsError | None) -> None:
        """Do what follows a checkpoint that all ranks have written, or couldn't write.

        Raises:
            WeightsError: they couldn't, and the run is to stop.
        """

        def work() -> None:
            if problem:
                raise problem

        self._note(path, work)
        self.wait()

    def _write(self, path: Path, payload: Mapping[str, Any]) -> None:
        self._note(path, lambda: write_checkpoint(path, payload))

    def _note(self, path: Path, write: Callable[[], object]) -> None:
        best = path.name == BEST
        try:
            write()
            logger.info("wrote %s", path)
            self.superseded = [former for former in self.superseded if former != path]
            if not best:
                self.unsaved = ""
                # Of the same place there may be a former one, a file for a folder or the reverse.
                other = path.with_suffix("" if path.suffix else ".pyth")
                for former in (other, *self.superseded):
                    remove(former)
                self.superseded = ()
                prune_checkpoints(self.output, self.keep, path)
        except (WeightsError, OSError) as error:
            self._failed(error, best)
        except BaseException as error:  # a bug of ours: in the thread it would be lost
            self._end_with(error)

    def _failed(self, error: WeightsError | OSError, best: bool) -> None:
        problem = str(error)
        if isinstance(error, OSError):  # of deleting
            problem = f"{error.filename}: {error.strerror}"
        if not self.goes_on:
            self._end_with(WeightsError(problem))
            return
        if best:
            self.lost_best = True
            logger.warning("%s; training goes on, %s stays what it was", problem, BEST)
        else:
            self.unsaved = problem
            self.interruption.save_again(AGAIN)
            if self.last:
                return
            logger.warning(
                "%s; training goes on (TRAIN.ON_FAILED_SAVE), and saves again in %g minutes or at "
                "the next checkpoint, whichever is first",
                *(problem, AGAIN / 60),
            )

    def _end_with(self, error: BaseException) -> None:
        self.error = error
        self.interruption.save_again(0.0)  # where all ranks hear of it


def pause() -> bool:
    """Give a full disk some time; return False where the run was asked to stop meanwhile."""
    end = time.monotonic() + LAST_PAUSE
    while not asked() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
    return not asked()


def predicted_bytes(
    model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None
) -> int:
    """Return the bytes of the numbers in a checkpoint; before the first step, as after it."""
    size = (2 if ema else 1) * stored_bytes(bare(model).state_dict())
    if optimizer.state:
        return size + stored_bytes(optimizer.state_dict())
    if is_eight_bit(optimizer):
        groups = optimizer.param_groups
        return size + sum(gathered_bytes(p) for group in groups for p in group["params"])
    for group in optimizer.param_groups:
        moments = 2 if "betas" in group else int(bool(group.get("momentum")))
        size += moments * sum(p.numel() * p.element_size() for p in group["params"])
    return size


def log_space(cfg: CfgNode, size: int) -> None:
    """Warn, before the first save, of a disk that hasn't the room for a run's checkpoints.

    Args:
        cfg: says how many files there will be.
        size: bytes of one.
    """
    folder = get_checkpoint_dir(cfg.OUTPUT_DIR)  # perhaps a link to another disk
    folder = folder if folder.is_dir() else folder.parent
    train = cfg.TRAIN
    epochs = math.ceil(cfg.SOLVER.MAX_EPOCH / train.CHECKPOINT_PERIOD)
    files = min(epochs, train.KEEP_CHECKPOINTS or epochs)
    files += bool(train.EVAL_PERIOD)  # the best
    files += WITHIN_EPOCH * bool(train.CHECKPOINT_STEPS or train.CHECKPOINT_MINUTES)
    # One more, as the oldest goes when the newest is there; former ones are replaced.
    need = ROOM * size * (files + 1)
    need -= sum(map(stored_size, former_checkpoints(cfg.OUTPUT_DIR)))
    free = shutil.disk_usage(folder).free
    if free < need:
        logger.warning(
            "%s: %s free bytes, and %s of %s bytes need %s more: make room, lower "
            "TRAIN.KEEP_CHECKPOINTS, or take another OUTPUT_DIR",
            *(folder, f"{free:,}", counted(files + 1, "checkpoint"), f"{size:,}"),
            f"{math.ceil(need):,}",
        )
