"""The index of shards: a text file with a row for each member, sorted, searched where it lies.

    name <TAB> number of the shard <TAB> offset <TAB> bytes <TAB> SHA-256

Rows are in the order of their bytes, and a name has no control characters, so a name is found by
halving, and the members of a folder follow each other. Nothing is read into memory: the file is
mapped, and all processes of a machine share what the system keeps of it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from timesformer.utils.errors import ShardsError
from timesformer.utils.files import open_regular


class Entry(NamedTuple):
    """Where a member is.

    Attributes:
        shard: number of its tar.
        offset: of its first byte in it.
        size: in bytes.
        digest: SHA-256 in hexadecimal digits.
    """

    shard: int
    offset: int
    size: int
    digest: str


class ShardIndex:
    """An index that is open; processes that are forked may go on with it."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            ShardsError: it can't be read.
        """
        self.path = path
        try:
            with open_regular(path) as file:
                empty = not file.seek(0, 2)
                self._data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ShardsError(f"{path}: can't be read: {error.strerror}") from error

    def find(self, name: str) -> Entry | None:
        """Return where a member is, None if there is none of that name."""
        key = to_bytes(name) + b"\t"
        start = self._first(key)
        return self._row(start)[1] if self._begins(start, key) else None

    def is_folder(self, name: str) -> bool:
        """Tell whether there are members in a folder of that name."""
        key = to_bytes(name) + b"/"
        return self._begins(self._first(key), key)

    def below(self, folder: str) -> Iterator[tuple[str, Entry]]:
        """Yield all members of a folder and those in it, sorted; of "" all that there are."""
        key = to_bytes(folder) + b"/" if folder else b""
        start = self._first(key)
        while self._begins(start, key):
            name, entry = self._row(start)
            yield name, entry
            start = self._data.find(b"\n", start) + 1

    def _begins(self, start: int, key: bytes) -> bool:
        return start < len(self._data) and self._data[start : start + len(key)] == key

    def _first(self, key: bytes) -> int:
        """Return where the first row begins that isn't before a key."""
        low, high = 0, len(self._data)
        while low < high:
            start = self._data.rfind(b"\n", 0, (low + high) // 2) + 1
            if self._data[start : start + len(key)] < key:
                low = (self._data.find(b"\n", start) + 1) or len(self._data)
            else:
                high = start
        return low

    def _row(self, start: int) -> tuple[str, Entry]:
        end = self._data.find(b"\n", start)
        try:
            return parse_row(self._data[start : len(self._data) if end < 0 else end])
        except ValueError as error:
            raise ShardsError(
                f"{self.path}, byte {start:,}: damaged, no row of an index"
            ) from error


def parse_row(row: bytes) -> tuple[str, Entry]:
    """Read a row without its end.

    Raises:
        ValueError: it is none.
    """
    name, shard, offset, size, digest = row.split(b"\t")
    if not (shard.isdigit() and offset.isdigit() and size.isdigit()):  # int() takes b"1_0"
        raise ValueError(row)
    return to_text(name), Entry(int(shard), int(offset), int(size), digest.decode("ascii"))


def row_of(name: str, entry: Entry) -> bytes:
    """Return the row of a member, with its end."""
    numbers = f"{entry.shard}\t{entry.offset}\t{entry.size}\t{entry.digest}\n"
    return to_bytes(name) + b"\t" + numbers.encode("ascii")


def to_bytes(name: str) -> bytes:
    """Return a member's name as it is stored."""
    return name.encode("utf-8", "surrogateescape")


def to_text(name: bytes) -> str:
    """Return a stored name as a path."""
    return name.decode("utf-8", "surrogateescape")
