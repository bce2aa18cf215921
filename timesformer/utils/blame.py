"""Which rank's error ended a run: the others lose their connection, and can say whose fault it is.

The first that meets an error notes it in the store that all ranks have met in, before it ends.
"""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch.distributed as dist

from timesformer.utils.ending import within
from timesformer.utils.errors import ANOTHER_ENDED, Stopped, UserError
from timesformer.utils.stopping import SIGNALS

_KEY = "timesformer/first_error"
_LONGEST = 4000  # characters of a traceback, the end of it: those of many ranks must fit a pipe
_SECONDS = 5.0  # the store may be gone with its rank


class Blame(NamedTuple):
    """What ended a rank.

    Attributes:
        rank: which one.
        message: one line.
        status: what its process ends with.
        trace: where it was, if it is a bug; else "".
    """

    rank: int
    message: str
    status: int
    trace: str = ""

    def error(self) -> UserError:
        """Make the error that a launcher shows of it."""
        if self.status in (75, 130):
            return Stopped(self.message, self.status)
        error = UserError(self.message)
        error.status = self.status
        return error


_rank = 0
_channel: Callable[[Blame], object] | None = None
_told = False


@contextmanager
def rank_that_tells(rank: int) -> Iterator[None]:
    """Say which rank this process is; nothing has ended it yet."""
    global _rank, _told
    before = _rank, _told
    _rank, _told = rank, False
    try:
        yield
    finally:
        _rank, _told = before


@contextmanager
def also_to(channel: Callable[[Blame], object]) -> Iterator[None]:
    """Let somebody else hear what ends this rank, too: its launcher."""
    global _channel
    before, _channel = _channel, channel
    try:
        yield
    finally:
        _channel = before


def tell_error(error: BaseException) -> None:
    """Tell the other ranks and the launcher what ends this one; only its first error counts."""
    if isinstance(error, UserError):
        tell(str(error), error.status)
    elif isinstance(error, Exception):
        text = "".join(traceback.format_exception(error))[-_LONGEST:]
        first = (str(error).splitlines() or [""])[0]
        tell(f"{type(error).__name__}: {first:.500}", 1, text)


def tell(message: str, status: int, trace: str = "") -> None:
    """Tell them; see `Blame`."""
    global _told
    if _told:
        return
    _told = True
    blame = Blame(_rank, message, status, trace)
    if _channel:
        _channel(blame)
    if store := _store():
        within(_SECONDS, lambda: store.compare_set(_KEY, "", json.dumps(blame)))


def told() -> Blame | None:
    """Return what ended another rank, if it could still say so and its store can be reached."""
    found: list[Blame] = []
    store = _store()

    def read() -> None:
        if store is not None and store.check([_KEY]):
            found.append(Blame(*json.loads(store.get(_KEY))))

    within(_SECONDS, read)
    return found[0] if found else None


def another_ended() -> str:
    """Say which other rank has ended and why, or that it isn't known; with its traceback."""
    if (blame := told()) is None:
        return ANOTHER_ENDED
    return f"{ANOTHER_ENDED} (rank {blame.rank}: {blame.message})\n{blame.trace}".rstrip()


def end_of_lost(rank: int, local_rank: int, local_size: int, *, one_screen: bool) -> BaseException:
    """Return what ends a rank that has lost another: silence where there is nothing to add.

    Args:
        rank: this one.
        local_rank: its place on this node.
        local_size: ranks of each node.
        one_screen: what the ranks of a node say is shown together, as torchrun does; else each has
            a terminal or a log of its own, and a supervisor that reads its last words.
    """
    if (blame := told()) is None:
        silent = one_screen and local_rank > 0
        return SystemExit(2) if silent else UserError(ANOTHER_ENDED)
    if one_screen and (local_rank or blame.rank // local_size == rank // local_size):
        return SystemExit(blame.status)
    error = UserError(f"{ANOTHER_ENDED} (rank {blame.rank}: {blame.message})")
    error.status = blame.status
    return error


def of_silent(ranks: Sequence[BaseProcess]) -> UserError | None:
    """Return what to say of a rank of this node that has ended without a word, if one has."""
    for rank, process in enumerate(ranks):
        status = process.exitcode or 0
        # Those that lost it have ended with 2, or were told to end.
        if status < 0 and -status not in SIGNALS:
            name = signal.Signals(-status).name
            memory = ": the system does that where memory is full" if name == "SIGKILL" else ""
            return UserError(f"process {rank} of this node was killed by {name}{memory}")
        if status > 2:
            return UserError(f"process {rank} of this node has ended with status {status}")
    return None


def _store() -> Any:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return dist.distributed_c10d._get_default_store()
