"""What surrounds every run: its folder, its log and its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from fvcore.common.config import CfgNode

from timesformer.utils.distributed import is_main, together
from timesformer.utils.logging import errors_in_log, setup_logging
from timesformer.utils.run_lock import run_lock


@contextmanager
def run_scope(cfg: CfgNode) -> Iterator[None]:
    """Log into OUTPUT_DIR, which belongs to this run meanwhile; what ends the run is logged too.

    Raises:
        UserError: on all ranks, if the folder can't be written, or another run has it.
    """
    together(lambda: setup_logging(cfg.OUTPUT_DIR))
    lock = run_lock(cfg.OUTPUT_DIR) if is_main() else nullcontext()
    together(lock.__enter__)
    problem: BaseException | None = None
    try:
        with errors_in_log():
            yield
    except BaseException as error:
        problem = error
        raise
    finally:
        lock.__exit__(type(problem) if problem else None, problem, None)
