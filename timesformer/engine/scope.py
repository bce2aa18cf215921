"""What surrounds every run: its folder, its log and its lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.engine.broken import FILE_NAME
from timesformer.engine.provenance import NAME as ENVIRONMENT
from timesformer.engine.results import result_files
from timesformer.engine.trace import NAME as TRACE
from timesformer.utils.checkpoint import former_checkpoints, get_checkpoint_dir
from timesformer.utils.determinism import deterministic
from timesformer.utils.distributed import gather_objects, how_started, is_main, together
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.files import LOCK_NAME, is_in_parts, make_folder, make_place, require_place
from timesformer.utils.logging import errors_in_log, get_logger, setup_logging
from timesformer.utils.run_lock import run_lock
from timesformer.utils.stopping import noting_signals
from timesformer.utils.watchdog import watching

logger = get_logger(__name__)

OF_A_NODE = frozenset(
    {
        *("SHARD_ID", "OUTPUT_DIR", "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX"),
        *("TRAIN.CHECKPOINT_FILE_PATH", "TEST.CHECKPOINT_FILE_PATH"),
        *("TIMESFORMER.PRETRAINED_MODEL", "DATA_LOADER.NUM_WORKERS", "DATA_LOADER.PIN_MEMORY"),
    }
)
"""Keys that may differ between ranks; lists and weights are compared by what is in them."""


def compare_configs(cfg: CfgNode) -> None:
    """Make sure that ranks that were started one by one were started alike.

    Raises:
        UserError: on all ranks, naming a key that differs.
    """
    ours, *others = gather_objects({k: v for k, v in cfg.leaves() if k not in OF_A_NODE})
    for rank, theirs in enumerate(others, 1):
        if differ := [key for key in ours if theirs.get(key) != ours[key]]:
            key = differ[0]
            raise ConfigError(
                f"{key} is {ours[key]!r} on rank 0 and {theirs.get(key)!r} on rank {rank}: start "
                "all ranks with the same config"
            )


def check_places(cfg: CfgNode) -> None:
    """Make sure that a run's folder has no pipe or device where it will write, hours from now.

    Raises:
        UserError: naming it.
    """
    folder = Path(cfg.OUTPUT_DIR)
    checkpoints = get_checkpoint_dir(folder)
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        raise UserError(f"{checkpoints}: is there and is no folder; checkpoints go there")
    written = [
        folder / name
        for name in ("run.log", "stats.jsonl", FILE_NAME, LOCK_NAME, ENVIRONMENT, TRACE)
    ]
    if cfg.TRAIN.ENABLE:
        written += [path for path in former_checkpoints(folder) if not is_in_parts(path)]
    if cfg.TEST.ENABLE:
        written += result_files(cfg)
    for path in written:
        require_place(path)


def tensorboard_dir(cfg: CfgNode) -> Path:
    """Return where the curves go."""
    return Path(cfg.TENSORBOARD.LOG_DIR or Path(cfg.OUTPUT_DIR) / "tensorboard")


def make_places_elsewhere(cfg: CfgNode) -> None:
    """Make the folders of results and curves, which may lie outside of OUTPUT_DIR.

    Raises:
        UserError: one can't be made, or written into.
    """
    if cfg.TRAIN.ENABLE and cfg.TENSORBOARD.ENABLE:
        make_folder(tensorboard_dir(cfg))
    for path in result_files(cfg) if cfg.TEST.ENABLE else ():
        make_place(path)


@contextmanager
def run_scope(cfg: CfgNode) -> Iterator[None]:
    """Log into OUTPUT_DIR, which belongs to this run meanwhile; what ends the run is logged too.

    Signals that ask it to stop are noted (`utils.stopping`); what runs has to ask for them, and to
    say what it is doing (`utils.watchdog`).

    Raises:
        UserError: on all ranks, if the folder can't be written, or another run has it.
    """
    together(lambda: check_places(cfg))
    together(lambda: setup_logging(cfg.OUTPUT_DIR))
    together(lambda: make_places_elsewhere(cfg) if is_main() else None)
    lock = run_lock(cfg.OUTPUT_DIR) if is_main() else nullcontext()
    together(lock.__enter__)
    problem: BaseException | None = None
    try:
        watch = watching(cfg.TRAIN.WATCHDOG_MINUTES, cfg.OUTPUT_DIR)
        signals = noting_signals(told=is_main())
        with errors_in_log(), signals, deterministic(cfg.DETERMINISTIC), watch:
            compare_configs(cfg)
            if how := how_started():
                logger.info("%s", how)
            yield
    except BaseException as error:
        problem = error
        raise
    finally:
        lock.__exit__(type(problem) if problem else None, problem, None)
