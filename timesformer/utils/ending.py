"""Ending a process at once, from whichever thread, without leaving behind what others trip over."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

PATIENCE = 5.0  # seconds for each thing that is done before; storage and pipes may hang

# With the process that they are of: one that is forked has its parent's in memory.
_acts: list[tuple[int, Callable[[], object]]] = []


@contextmanager
def at_sudden_end(act: Callable[[], object]) -> Iterator[None]:
    """Have something done if `end_now` ends this process within the block; at most for seconds."""
    entry = os.getpid(), act
    _acts.append(entry)
    try:
        yield
    finally:
        _acts.remove(entry)


def end_now(status: int, *first: Callable[[], object]) -> NoReturn:
    """End this process with a status, whatever its threads are at.

    Args:
        status: 1 to 255.
        first: what else is done before, e.g. saying why.
    """
    mine = [act for process, act in reversed(_acts) if process == os.getpid()]
    for act in (*first, *mine):
        within(PATIENCE, act)
    os._exit(status)


def within(seconds: float, act: Callable[[], object]) -> None:
    """Do something, but wait no longer than that for its end; errors are nobody's."""

    def attempt() -> None:
        with suppress(Exception):
            act()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
