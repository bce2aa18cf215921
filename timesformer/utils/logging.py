"""What a run says: readable lines, JSON lines for programs, and progress bars on a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import simplejson
from tqdm import tqdm

from timesformer.utils.blame import another_ended, tell_error
from timesformer.utils.distributed import get_rank, is_main, is_of_another_rank
from timesformer.utils.errors import ConfigError, UserError, to_nowhere
from timesformer.utils.files import append_line, make_folder

T = TypeVar("T")

ROOT = "timesformer"


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; lines go where `setup_logging` says."""
    return logging.getLogger(name)


class _LogFile(logging.FileHandler):
    """Writes run.log; a disk that is full for a while is told once and doesn't end the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not getattr(self, "told", False):
            self.told = True
            _tell(f"{self.baseFilename}: can't be written: {error.strerror}")


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be on the same full disk
        print(line, file=sys.stderr)


class _BarHandler(logging.Handler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write_line(self.format(record))
        except Exception:  # as every logging handler: report on stderr, go on
            self.handleError(record)


def _write_line(line: str) -> None:
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except UnicodeEncodeError:  # a terminal that knows ASCII only
        tqdm.write(line.encode("ascii", "backslashreplace").decode(), file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        # Whoever read the output has enough of it (`| head`), or its disk is full; the run and its
        # log go on, and what is buffered mustn't be written at the end.
        if not isinstance(error, BrokenPipeError):
            _tell(f"stdout: can't be written: {error.strerror or error}; nothing more goes there")
        to_nowhere(sys.stdout)


def setup_logging(output_dir: str) -> None:
    """Send the package's log lines to stdout and, with time stamps, to OUTPUT_DIR/run.log.

    Other ranks than 0 only show warnings, on stderr and with their rank.

    Raises:
        ConfigError: OUTPUT_DIR can't be made or written.
    """
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    handlers: list[logging.Handler]
    if is_main():
        logger.setLevel(logging.INFO)
        try:
            make_folder(Path(output_dir))
            file = _LogFile(Path(output_dir) / "run.log", encoding="utf-8")
        except UserError as error:
            raise ConfigError(f"OUTPUT_DIR {error}") from error
        except OSError as error:
            raise ConfigError(
                f"OUTPUT_DIR {output_dir:.200}: can't be written: {error.strerror}"
            ) from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers = [_BarHandler(), file]
    else:
        logger.setLevel(logging.WARNING)
        handlers = [logging.StreamHandler()]
        handlers[0].setFormatter(logging.Formatter(f"[rank {get_rank()}] %(message)s"))
    for handler in handlers:
        logger.addHandler(handler)


_logged: list[BaseException | None] = [None]  # the last one that ended a run


@contextmanager
def errors_in_log() -> Iterator[None]:
    """Write what ends a run to run.log too: one line if the user can mend it, else all of it."""
    try:
        yield
    except BaseException as error:
        if error is _logged[0]:  # by the scope within
            raise
        _logged[0] = error
        lost = is_of_another_rank(error)
        if not lost:
            tell_error(error)
        known = lost or isinstance(error, UserError | KeyboardInterrupt | SystemExit)
        text = another_ended() if lost else str(error) or type(error).__name__
        record = logging.LogRecord(
            ROOT, logging.ERROR, "", 0, "%s", (text,), None if known else sys.exc_info()
        )
        for handler in logging.getLogger(ROOT).handlers:
            if isinstance(handler, _LogFile):
                handler.handle(record)
        raise


def add_to_log(folder: str | Path, text: str) -> None:
    """Add to run.log from any rank and thread, past all locks of logging, if the file is there.

    Raises:
        OSError: it can't be written.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    descriptor = os.open(Path(folder) / "run.log", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{stamp} ERROR {ROOT}: {text}\n".encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)


def to_stderr(text: str) -> None:
    """Write a text to stderr past its locks, which a thread that hangs may have.

    Raises:
        OSError: it can't be written.
    """
    os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))


def log_json_stats(stats: Mapping[str, Any], output_dir: str) -> None:
    """Write one JSON line to stdout and OUTPUT_DIR/stats.jsonl, from rank 0.

    Floats keep the seven significant digits of float32; NaN and infinity become null, which JSON
    can say.
    """
    if not is_main():
        return
    said = {k: rounded(v) if isinstance(v, float) else v for k, v in stats.items()}
    line = simplejson.dumps(said, ignore_nan=True)
    path = Path(output_dir) / "stats.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, line)
    except OSError as error:  # the line below is in the log all the same
        get_logger(__name__).warning("%s: can't be written: %s", path, error.strerror)
    _write_line(line)


def rounded(value: float) -> float:
    """Return the seven significant digits that `log_json_stats` writes."""
    return float(f"{value:.7g}")


def progress(
    items: Iterable[T], desc: str, total: int | None = None, initial: int = 0
) -> Iterable[T]:
    """Return the items, with a progress bar when a person watches (a terminal, rank 0).

    Args:
        items: to go through.
        desc: what they are.
        total: their number, and that of those done before.
        initial: those done before.
    """
    if not (is_main() and sys.stderr.isatty()):
        return items
    return tqdm(items, desc, total, leave=False, dynamic_ncols=True, initial=initial)
