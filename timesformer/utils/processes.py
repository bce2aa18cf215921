"""Work in several processes that survives the crash of one: video decoders do crash."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from timesformer.utils.ending import end_now
from timesformer.utils.limits import cpu_quota
from timesformer.utils.stopping import without_interrupts

POLL = 1.0  # seconds
CRASHED = "the decoder crashes on it, or it takes all memory"

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    crashed: Callable[[Item], Result],
) -> Generator[tuple[Item, Result], None, None]:
    """Apply a function to items in worker processes, even one that crashes its process.

    Args:
        function: picklable; what it raises ends the iteration.
        items: picklable.
        workers: number of processes; 0 does it in this one, where a crash is a crash.
        crashed: makes the result of an item whose process died.

    Yields:
        Items with their results, in the order in which they are done.
    """
    waiting, suspects = deque(items), deque[Item]()
    if workers == 0:
        yield from ((item, function(item)) for item in waiting)
        return
    while waiting or suspects:
        # A crash fails all that was under way, and only of one by one is known which it was.
        alone = bool(suspects)
        queue, ahead = (suspects, 1) if alone else (waiting, 2 * workers)
        running: dict[Future[Result], Item] = {}
        with _pool(1 if alone else min(workers, len(waiting))) as pool:
            try:
                while queue or running:
                    while queue and len(running) < ahead:
                        with without_interrupts():  # it may start a worker
                            future = pool.submit(function, queue[0])
                        running[future] = queue[0]
                        queue.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                pass
        if alone:
            yield from ((item, crashed(item)) for item in running.values())
        else:
            suspects.extend(running.values())


def cores() -> int:
    """Return how many cores this process may use, or else how many there are."""
    found, quota = len(usable_cores()), cpu_quota()
    return found if quota is None else max(1, min(found, math.ceil(quota)))


def usable_cores() -> frozenset[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def at_most(workers: int) -> int:
    """Return how many of so many processes the system can wait for: 61 on Windows."""
    return min(workers, 61) if sys.platform == "win32" else workers


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that outlive neither an interrupt nor this process."""
    others = set(multiprocessing.active_children())
    # Forking a process that has threads (tqdm's, torch's) may deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_most(workers), context, initializer=_follow_parent)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Let a worker end when its parent does, however that happens, and not by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    end_with_parent()


def end_with_parent() -> None:
    """Let a process that multiprocessing has started end when its parent does, even by a kill."""
    if parent := multiprocessing.parent_process():
        _end_after(parent.join)


def under_torchrun() -> bool:
    """Tell whether torchrun itself has started this process, and not a script that says so."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_torchrun() -> None:
    """Let a process that torchrun has started end when torchrun does, even by a kill."""
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:  # an orphan has another one
            time.sleep(POLL)

    if under_torchrun() and os.name != "nt":
        _end_after(wait)


def _end_after(wait: Callable[[], object]) -> None:
    def follow() -> None:
        wait()
        end_now(1)

    threading.Thread(target=follow, daemon=True).start()


def is_alive(pid: int) -> bool:
    """Tell whether a process of that number runs on this machine; True where it can't be asked."""
    if os.name == "nt":  # there, os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
