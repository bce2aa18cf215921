"""What a run says: readable lines, JSON lines for programs, and progress bars on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import simplejson
from tqdm import tqdm

from timesformer.utils.distributed import get_rank, is_main

T = TypeVar("T")

ROOT = "timesformer"


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; lines go where `setup_logging` says."""
    return logging.getLogger(name)


class _BarHandler(logging.Handler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


def setup_logging(output_dir: str) -> None:
    """Sends the package's log lines to stdout and OUTPUT_DIR/run.log.

    Rank 0 writes; other ranks only show warnings, with their rank.
    """
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    rank = "" if is_main() else f"[rank {get_rank()}] "
    logger.setLevel(logging.INFO if is_main() else logging.WARNING)
    handlers: list[logging.Handler] = [_BarHandler()]
    handlers[0].setFormatter(logging.Formatter(rank + "%(message)s"))
    if is_main():
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(Path(output_dir) / "run.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    for handler in handlers:
        logger.addHandler(handler)


def log_json_stats(stats: Mapping[str, Any], output_dir: str) -> None:
    """Writes one JSON line to stdout and OUTPUT_DIR/stats.jsonl, from rank 0.

    Floats keep six significant digits; NaN and infinity become null, which JSON can say.
    """
    if not is_main():
        return
    rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in stats.items()}
    line = simplejson.dumps(rounded, ignore_nan=True)
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    with (Path(output_dir) / "stats.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def progress(items: Iterable[T], desc: str, total: int | None = None) -> Iterable[T]:
    """The items, with a progress bar when a person watches (a terminal, rank 0)."""
    if not (is_main() and sys.stderr.isatty()):
        return items
    return tqdm(items, desc=desc, total=total, leave=False, dynamic_ncols=True)
