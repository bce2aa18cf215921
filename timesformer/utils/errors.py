"""Errors that the person at the keyboard can mend.

Every command shows a `UserError` as one line and exits with its status, 2 unless it says another;
any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO


def in_one_line(text: str) -> str:
    """Show what would break a line, e.g. in the name of a file, by its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UserError(Exception):
    """Base class: the message names the file, line or key at fault and says what to do.

    It is one line, whatever the names in it.

    Attributes:
        status: what a command that it ends exits with.
    """

    status = 2

    def __str__(self) -> str:
        return in_one_line(super().__str__())


class ConfigError(UserError, ValueError):
    """A configuration that can't work. The message names the key to change."""


class AnnotationError(UserError, ValueError):
    """A missing or malformed list of videos. The message names the file and line."""


class ShardsError(UserError, RuntimeError):
    """Shards that are missing, or don't belong together. The message names the file."""


class WeightsError(UserError, RuntimeError):
    """Weights that are missing, damaged, or don't belong to this model."""


class FetchError(WeightsError):
    """Weights that a hub doesn't give, perhaps since it has none of that name."""


class TrainingError(UserError, RuntimeError):
    """Training can't go on, e.g. because the loss is not finite."""


class Stopped(UserError):  # noqa: N818  (no error)
    """A run was asked to stop, and has. Nothing is wrong: the same command goes on.

    Attributes:
        status: 130 after Ctrl-C, else 75 (EX_TEMPFAIL of sysexits.h), by which a launcher can tell
            that it is to be started again.
    """

    def __init__(self, message: str, status: int = 75) -> None:
        super().__init__(message)
        self.status = status


class VideoError(UserError, RuntimeError):
    """A video that can't be read.

    Attributes:
        path: the file; one in a shard is `SHARD.tar!PATH`.
        reason: what is wrong with it, in words.
        errno: the system's number, where it is the system that can't read it, else None.
    """

    def __init__(self, path: object, reason: str, errno: int | None = None) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason
        self.errno = errno

    @classmethod
    def of_system(cls, path: object, error: Any, otherwise: str) -> VideoError:
        """Make one of an error of the system, or of a library that has no number for it."""
        if error.errno is None:
            return cls(path, f"{otherwise} ({error})")
        return cls(path, (error.strerror or otherwise).rstrip(".").lower(), error.errno)

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, int | None]]:
        # The default would call VideoError(message) when a worker process sends it to its parent.
        return (type(self), (self.path, self.reason, self.errno))


# Errors of writing that have nothing to do with what is written.
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
}
INTERRUPTED, TERMINATED = "interrupted\n", "ended by SIGTERM\n"
ANOTHER_ENDED = "another rank has ended; its own message says why"
# What an extra of setup.py installs, and the extra.
_EXTRAS = {"matplotlib": "viz", "sklearn": "embed", "huggingface_hub": "hub", "gradio": "serve"}
_EXTRAS |= {"torchcodec": "torchcodec", "openvino": "openvino", "nncf": "openvino"}
_EXTRAS |= dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx")
_EXTRAS |= {"pyarrow": "parquet", "ray": "ray", "fsspec": "remote", "aiohttp": "remote"}
_EXTRAS |= {"submitit": "cluster"}


def how_to_install(module: str) -> str:
    """Say how to install a module of an extra of setup.py."""
    return f"pip install 'timesformer[{_EXTRAS[module]}]'"


@contextmanager
def handling(handlers: Mapping[int, Callable[..., object]]) -> Iterator[None]:
    """Handle signals so within the block; in a thread other than the main one it does nothing."""
    if threading.current_thread() is not threading.main_thread():  # which has all signals
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def signals_end_at_once() -> contextlib.AbstractContextManager[None]:
    """Let an interrupt or SIGTERM end this process as it ends `run_tool`, but without unwinding.

    For imports: an exception that comes up in the C++ of torch's aborts the process.
    """

    def end(number: int, _: object) -> None:
        os.write(2, (TERMINATED if number == signal.SIGTERM else INTERRUPTED).encode())
        os._exit(128 + number)

    return handling({signal.SIGINT: end, signal.SIGTERM: end})


def sigterm_unwinds() -> contextlib.AbstractContextManager[None]:
    """Let SIGTERM end this process with status 143, but not without what is done at an end.

    By itself it would leave processes, temporary files and semaphores behind; and the first process
    of a container wouldn't hear it at all.
    """

    def end(*_: object) -> None:
        os.write(2, TERMINATED.encode())
        raise SystemExit(128 + signal.SIGTERM)

    return handling({signal.SIGTERM: end})


def to_nowhere(stream: TextIO) -> None:
    """Let a stream that can't be written any more, and what it still holds, go to /dev/null."""
    with contextlib.suppress(OSError):  # one of Python's own, which has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run_tool(main: Callable[[], None]) -> None:
    """Run the `main` of a command; a `UserError` becomes one line and its exit status, mostly 2.

    So does a module that isn't installed, if it is of an extra, and a disk that can't be written.
    An interrupt is one line and status 130, SIGTERM one and 143, unless the command does something
    about it; a reader of the output that has gone is no error.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that has no "×" shows \xd7
            stream.reconfigure(errors="backslashreplace")
    status = 2
    try:
        with sigterm_unwinds():
            main()
        sys.stdout.flush()  # at the end of the process, an error would be a traceback
    except Stopped as error:
        complaint, status = str(error), error.status
    except UserError as error:
        complaint, status = f"error: {error}", error.status
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        complaint = f"error: {error}: {how_to_install(error.name)}"
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, end="")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has enough of it; what is buffered mustn't be written at the end.
        to_nowhere(sys.stdout)
        sys.exit(0)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        complaint = f"error: {error.filename or 'writing'}: {os.strerror(error.errno or 0)}"
        try:
            sys.stdout.flush()
        except OSError:
            to_nowhere(sys.stdout)
    else:
        return
    try:
        print(complaint, file=sys.stderr, flush=True)
    except OSError:  # stderr may be on the same full disk; the status says it
        to_nowhere(sys.stderr)
    sys.exit(status)
