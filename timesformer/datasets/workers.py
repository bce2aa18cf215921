"""Processes that read for a loader: how they start and end, and what it means if one doesn't."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Protocol

import torch

from timesformer.datasets.lists.records import Record, named
from timesformer.datasets.video.held import Board, of_this_process
from timesformer.utils.ending import at_sudden_end
from timesformer.utils.errors import TrainingError
from timesformer.utils.processes import end_with_parent
from timesformer.utils.stopping import leave_signals_to_main
from timesformer.utils.watchdog import witnessed

CANT_HAND_OVER = 74  # a worker's status; EX_IOERR of sysexits.h
_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? (\d+)")


def init_worker(worker: int, board: Board | None = None) -> None:
    """Prepare a worker process: one thread, since the workers themselves fill the cores.

    Args:
        worker: its number, from 0.
        board: where it says what it reads.
    """
    torch.set_num_threads(1)
    leave_signals_to_main()
    if board:
        board.take(worker)
    # torch looks whether a worker's parent has changed; under forkserver (from Python 3.14 on the
    # rule) that is another process, which stays, and so would the workers.
    end_with_parent()
    # A batch is handed over by a thread of the worker, which drops what it can't send, with a
    # traceback, and the main process would wait for it for ever.
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _give_up(error: BaseException, batch: object) -> None:
    print(f"loader worker {os.getpid()}: {error}", file=sys.stderr, flush=True)
    os._exit(CANT_HAND_OVER)


class Crew:
    """The workers of a loader.

    Args:
        board: where they say what they read.
        records: the loader's videos.

    Attributes:
        processes: of the last pass, in order; none where the main process reads itself.
    """

    def __init__(self, board: Board, records: Sequence[Record]) -> None:
        self.board = board
        self.records = records
        self.processes: list[BaseProcess] = []

    def place_of(self, process: int) -> int | None:
        """Return the place of a process among them, from 0; None if it isn't of them."""
        pids = [worker.pid for worker in self.processes]
        return pids.index(process) if process in pids else None

    def reading(self, place: int) -> str:
        """Name the video that a worker is reading, or was when it died; "" between two of them."""
        return self._named(self.board.said()[place].path)

    def _named(self, path: str) -> str:
        where = (i for i, record in enumerate(self.records) if record.path == path)
        index = next(where, None) if path else None
        return path if index is None else named(self.records, index)

    def last_words(self, place: int) -> str:
        """Say how a worker that is dead has died, at what, and what to do."""
        worker = self.processes[place]
        worker.join(1.0)  # its status may take a moment
        status, video = worker.exitcode, self.reading(place)
        if status == CANT_HAND_OVER:
            return f"loader worker {place} can't hand over its batch. {_EXHAUSTED.format(_free())}"
        how = "has ended" if status is None else f"has ended with status {status}"
        if status is not None and status < 0:
            how = f"was killed by {_signal_name(-status)}"
        where = f"while it read {video}" if video else "while it read no video"
        advice = _advice(status)
        return f"loader worker {place} (process {worker.pid}) {how} {where}. {advice}"

    def kill(self) -> None:
        """End those that are left at once; they may be stopped, or hang with the lock of Python."""
        for worker in self.processes:
            worker.kill()

    def end(self) -> None:
        """Do that, and wait for it."""
        self.kill()
        for worker in self.processes:
            worker.join(5.0)

    def progress(self) -> object:
        """Return what changes whenever one of them, or this process, begins or ends a video."""
        return (of_this_process(), *self.board.said())

    def says(self) -> list[str]:
        """Say what each of them is reading, or this process if it reads itself."""
        if not self.processes:
            path = of_this_process().path
            return [f"it is reading {self._named(path)}"] if path else []
        reading = [(place, self.reading(place)) for place in range(len(self.processes))]
        return [f"loader worker {place} is reading {video}" for place, video in reading if video]


class Reads(Protocol):
    """A loader, as far as its workers go."""

    crew: Crew


@contextmanager
def worker_errors(*loaders: Reads | None) -> Iterator[None]:
    """Turn the end of a loader's worker into a line that says at which video, and what to do.

    It goes around all that is done while a loader is read: torch raises it from a signal handler,
    wherever the main process happens to be. After an error, whatever it is, no worker is left:
    torch would wait five seconds for each that is busy, and Python for ever for a stopped one.

    Args:
        loaders: those that are read.

    Raises:
        TrainingError: a worker process ended, or batches can't be handed over.
    """
    crews = [loader.crew for loader in loaders if loader is not None]
    try:
        with ExitStack() as stack:
            for crew in crews:
                stack.enter_context(at_sudden_end(crew.kill))
                stack.enter_context(witnessed(crew.progress, crew.says))
            yield
    except BaseException as error:
        advice = ""
        if isinstance(error, RuntimeError | OSError):
            advice = next(filter(None, (_told(crew, error) for crew in crews)), exhausted(error))
        _end(crews)
        if advice:
            raise TrainingError(advice) from error
        raise


def _told(crew: Crew, error: Exception) -> str:
    died = _DIED.match(str(error))
    place = crew.place_of(int(died[1])) if died else None
    return "" if place is None else crew.last_words(place)


def _end(crews: Sequence[Crew]) -> None:
    """End workers without torch noticing, who would raise that from a signal handler."""
    if threading.current_thread() is not threading.main_thread():
        return  # it has no say in what a signal does
    if not hasattr(signal, "SIGCHLD"):
        for crew in crews:
            crew.end()
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for crew in crews:
            crew.end()
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _of_processes(error: Exception) -> bool:
    """Tell whether an error comes out of what starts workers, or brings their batches."""
    packages = ("multiprocessing.", "torch.multiprocessing.")
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith(packages) for frame, _ in frames)


def exhausted(error: Exception) -> str:
    """Say what to do if an error of the loader means that something has run out, else ""."""
    text = str(error)
    if isinstance(error, OSError):
        # With a file's name it is about that file, and a full disk may be that of the output.
        gone = error.filename is None and (
            error.errno in (errno.EMFILE, errno.ENFILE)
            or (error.errno == errno.ENOSPC and _of_processes(error))
        )
    else:
        gone = re.match(r"DataLoader worker \(pid|.*shared memory|.*ancdata", text) is not None
    if not gone:
        return ""
    return (
        "a loader worker has ended, or can't hand over its batch "
        f"({text.splitlines()[0]:.200}). {_EXHAUSTED.format(_free())}"
    )


_EXHAUSTED = (
    "Where shared memory is full{}, start the container with a larger --shm-size; where "
    "too many files are open, raise `ulimit -n`; where memory is full, lower "
    "DATA_LOADER.NUM_WORKERS, or --workers. NUM_WORKERS 0 needs none of them"
)
_CRASHES = (
    "If it does again, it is the video, which `timesformer check-data` finds too: take it out of "
    "the list"
)


def _advice(status: int | None) -> str:
    name = _signal_name(-status) if status is not None and status < 0 else ""
    if name == "SIGKILL":
        return (
            "The system does that where memory is full: lower DATA_LOADER.NUM_WORKERS, or "
            "--workers; or a person did"
        )
    if name == "SIGBUS":
        return (
            f"Where shared memory is full{_free()}, start the container with a larger --shm-size, "
            f"or set DATA_LOADER.NUM_WORKERS, or --workers, to 0. {_CRASHES}"
        )
    return _CRASHES


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _free() -> str:
    """Say how much shared memory there is, where that can be asked."""
    if not os.path.isdir("/dev/shm"):  # noqa: PTH112
        return ""
    total, _, free = (size / 2**20 for size in shutil.disk_usage("/dev/shm"))
    return f" (/dev/shm has {total:,.0f} MiB, {free:,.0f} of them free now)"
