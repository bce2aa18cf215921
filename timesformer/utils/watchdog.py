"""Ends a run that has hung: nothing moves any more, and nobody would notice.

Who works says what it begins, by `doing`; a thread looks now and then whether that has changed.
It can look while the main thread waits for a GPU, a file or another rank: these let other threads
run. What a worker process is at is progress too (`witnessed`).
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from timesformer.utils.blame import tell
from timesformer.utils.distributed import get_rank
from timesformer.utils.ending import end_now, within
from timesformer.utils.errors import in_one_line
from timesformer.utils.logging import add_to_log, to_stderr

STATUS = 70  # EX_SOFTWARE of sysexits.h: a launcher may start the run again, which goes on
# What is done for the first time may take so many times longer: compilers, caches, start-up. And
# nothing is a hang that takes less than so many times the longest that was none.
FACTOR = 3.0


class _Doing:
    """What is under way; one that says the same is another one."""

    __slots__ = ("first", "what", "where")

    def __init__(self, what: str, where: object, first: bool) -> None:
        self.what, self.where, self.first = what, where, first


START = "start"  # of weights that are fetched, lists that are read: it says nothing of steps
_now = _Doing(START, "", True)
_begun: set[str] = set()
_witnesses: list[tuple[Callable[[], object], Callable[[], Sequence[str]]]] = []
_watching = False


def doing(what: str, where: object = "") -> None:
    """Say what this process begins, which is progress. It costs less than a microsecond.

    Args:
        what: a kind of work; the first of a kind may take longer.
        where: which one, e.g. the step; made text only when it is needed.
    """
    global _now
    first = what not in _begun
    if first:
        _begun.add(what)
    _now = _Doing(what, where, first)


@contextmanager
def witnessed(progress: Callable[[], object], says: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Let something else count as progress too, while the block runs.

    Args:
        progress: makes a value that is another one if something has moved.
        says: makes lines for a report.
    """
    witness = (progress, says)
    _witnesses.append(witness)
    try:
        yield
    finally:
        _witnesses.remove(witness)


@contextmanager
def watching(minutes: float, folder: str) -> Iterator[None]:
    """End this process with `STATUS` once nothing has moved for so long; within another: nothing.

    Before, stderr and the log get one line that says the rank, what it was at and for how long, and
    the stacks of all threads.

    Args:
        minutes: 0 doesn't watch.
        folder: has the log of the run.
    """
    global _watching
    if _watching or not minutes:
        yield
        return
    over = threading.Event()
    _begun.clear()
    doing(START)
    thread = threading.Thread(target=_watch, args=(minutes, folder, over), daemon=True)
    thread.start()
    _watching = True
    try:
        yield
    finally:
        _watching = False
        over.set()
        thread.join()


def _watch(minutes: float, folder: str, over: threading.Event) -> None:
    patience, tick = _Patience(60 * minutes), min(5.0, 3 * minutes)
    before = time.monotonic()
    while not over.wait(tick):
        # A process that was stopped, or a machine that slept, hasn't waited all that time.
        passed, before = min(time.monotonic() - before, 2 * tick), time.monotonic()
        now = _now
        moved = tuple(progress() for progress, _ in list(_witnesses))
        if patience.is_over(now, moved, passed):
            _expire(now, patience.idle, minutes, folder)


class _Patience:
    """Knows how long nothing has moved, and whether that is too long.

    Args:
        limit: seconds.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.idle = self.longest = 0.0
        self.seen: tuple[_Doing, object] | None = None

    def is_over(self, now: _Doing, moved: object, passed: float) -> bool:
        """Look again.

        Args:
            now: what is under way.
            moved: another value than before where something has moved otherwise.
            passed: seconds since the last look.
        """
        if (now, moved) == self.seen:
            self.idle += passed
        else:
            if self.seen and self.seen[0].what != START:
                self.longest = max(self.longest, self.idle)
            self.seen, self.idle = (now, moved), 0.0
        return self.idle >= max(self.limit * (FACTOR if now.first else 1), FACTOR * self.longest)


def _expire(now: _Doing, idle: float, minutes: float, folder: str) -> None:
    said = [line for _, says in list(_witnesses) for line in _attempt(says)]
    at = f"{now.what}, {now.where}" if now.where else now.what
    line = in_one_line(
        f"rank {get_rank()} has made no progress for {idle / 60:.3g} minutes "
        f"(TRAIN.WATCHDOG_MINUTES {minutes:g}); the last that it began: {at}"
        + "".join(f"; {part}" for part in said)
    )
    stacks = _stacks()
    report = f"{line}; it ends with status {STATUS}. The same command goes on.\n{stacks}"
    end_now(
        STATUS,
        lambda: to_stderr(f"error: {report}"),
        lambda: add_to_log(folder, report),
        lambda: tell(line, STATUS),
    )


def _attempt(says: Callable[[], Sequence[str]]) -> Sequence[str]:
    found: list[str] = []
    with suppress(Exception):
        within(1.0, lambda: found.extend(says()))
    return found


def _stacks() -> str:
    """Return the stacks of all threads, the main one first."""
    main = threading.main_thread()
    threads = sorted(threading.enumerate(), key=lambda thread: thread is not main)
    frames = sys._current_frames()
    return "\n".join(
        f"Thread {thread.name}:\n" + "".join(traceback.format_stack(frames[thread.ident]))
        for thread in threads
        if thread.ident in frames and thread is not threading.current_thread()
    )
