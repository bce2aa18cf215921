"""What a run says: readable lines, JSON lines for programs, and progress bars on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import simplejson
from tqdm import tqdm

from timesformer.utils.distributed import get_rank, is_main

T = TypeVar("T")

ROOT = "timesformer"
LONGEST_LINE = 1 << 16  # bytes of stats.jsonl


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; lines go where `setup_logging` says."""
    return logging.getLogger(name)


class _BarHandler(logging.Handler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write_line(self.format(record))
        except Exception:  # as every logging handler: report on stderr, go on
            self.handleError(record)


def _write_line(line: str) -> None:
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def setup_logging(output_dir: str) -> None:
    """Send the package's log lines to stdout and, with time stamps, to OUTPUT_DIR/run.log.

    Other ranks than 0 only show warnings, on stderr and with their rank.
    """
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    handlers: list[logging.Handler]
    if is_main():
        logger.setLevel(logging.INFO)
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(Path(output_dir) / "run.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers = [_BarHandler(), file]
    else:
        logger.setLevel(logging.WARNING)
        handlers = [logging.StreamHandler()]
        handlers[0].setFormatter(logging.Formatter(f"[rank {get_rank()}] %(message)s"))
    for handler in handlers:
        logger.addHandler(handler)


def log_json_stats(stats: Mapping[str, Any], output_dir: str) -> None:
    """Write one JSON line to stdout and OUTPUT_DIR/stats.jsonl, from rank 0.

    Floats keep the seven significant digits of float32; NaN and infinity become null, which JSON
    can say.
    """
    if not is_main():
        return
    rounded = {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in stats.items()}
    line = simplejson.dumps(rounded, ignore_nan=True)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    append_line(Path(output_dir) / "stats.jsonl", line)
    _write_line(line)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file; what a killed run left of its last line is cut off first."""
    with path.open("ab+") as file:
        start = max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE)
        file.seek(start)
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(start + tail.rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")


def progress(items: Iterable[T], desc: str, total: int | None = None) -> Iterable[T]:
    """Return the items, with a progress bar when a person watches (a terminal, rank 0)."""
    if not (is_main() and sys.stderr.isatty()):
        return items
    return tqdm(items, desc=desc, total=total, leave=False, dynamic_ncols=True)
