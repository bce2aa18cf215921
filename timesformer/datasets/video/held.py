"""Which file a process is reading: where others can see it, should it crash or hang."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from typing import NamedTuple

_HEAD = struct.Struct("=qqq")  # process, files begun, bytes of the path or -1
_PLACE = 4096  # bytes of a process
_ROOM = _PLACE - _HEAD.size  # for a path; the end of a longer one is kept, where files differ


class Held(NamedTuple):
    """What a process says: its number, how many files it has begun, and the one it is at, or ""."""

    process: int
    begun: int
    path: str


class Board:
    """Memory in which each of some processes says what it reads.

    It goes to a process as an argument of its start, however it is started.

    Args:
        places: number of processes.
    """

    def __init__(self, places: int) -> None:
        self._memory = RawArray("B", max(1, places) * _PLACE)
        self.places = places

    def take(self, place: int) -> None:
        """Let this process speak from a place, from 0."""
        global _mine
        _mine = self._place(place)
        _HEAD.pack_into(_mine, 0, os.getpid(), 0, -1)

    def said(self) -> list[Held]:
        """Return what each place says; a place that nobody has taken is of process 0."""
        found = []
        for place in range(self.places):
            part = bytes(self._place(place))
            process, begun, length = _HEAD.unpack_from(part)
            path = part[_HEAD.size : _HEAD.size + max(length, 0)]
            found.append(Held(process, begun, path.decode("utf-8", "surrogateescape")))
        return found

    def _place(self, place: int) -> memoryview:
        return memoryview(self._memory).cast("B")[place * _PLACE : (place + 1) * _PLACE]


@contextmanager
def holding(path: str) -> Iterator[None]:
    """Say that this process is reading a file."""
    place = _mine
    text = os.fsencode(path)[-_ROOM:]
    _, begun, _ = _HEAD.unpack_from(place)
    place[_HEAD.size : _HEAD.size + len(text)] = text
    _HEAD.pack_into(place, 0, os.getpid(), begun + 1, len(text))
    try:
        yield
    finally:
        _HEAD.pack_into(place, 0, os.getpid(), begun + 1, -1)


_mine: memoryview


def of_this_process() -> Held:
    """Return what this process says, where it is no worker."""
    return _OWN.said()[0]


_OWN = Board(1)
_OWN.take(0)
