"""Writing one shard: a plain tar whose members' places and digests are known when it is closed."""

from __future__ import annotations

import hashlib
import os
import tarfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from timesformer.datasets.lists.row_paths import CONTROL
from timesformer.datasets.video.shard_index import Entry, row_of
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import open_regular, written_whole

COPIED = 1 << 20  # bytes at a time
LARGEST = 8**11 - 1  # bytes of a member, as a plain header has room for


class _Discarded(Exception):  # noqa: N818  (a signal rather than an error)
    """The tar is to disappear."""


class TarWriter:
    """A tar that appears under its name when it is closed without an error.

    Attributes:
        path: the tar.
        number: of the shard.
        videos: in it so far.
        bytes: in it so far.
        rows: of the index.
    """

    def __init__(self, path: Path, number: int) -> None:
        """Begin it."""
        self.path = path
        self.number = number
        self.videos = 0
        self.bytes = 0
        self.rows: list[bytes] = []
        self._stack = ExitStack()
        self._file: BinaryIO = self._open()

    def _open(self) -> BinaryIO:
        partial = self._stack.enter_context(written_whole(self.path, synced=True))
        return self._stack.enter_context(partial.open("wb"))

    def close(self) -> None:
        """Complete it.

        Raises:
            UserError: it can't be written.
        """
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.bytes + end) % tarfile.RECORDSIZE))
        self._stack.close()

    def discard(self) -> None:
        """Leave nothing of it."""
        with suppress(_Discarded):
            error = _Discarded()
            if not self._stack.__exit__(_Discarded, error, None):
                raise error

    def add(self, files: list[tuple[Path, str]]) -> None:
        """Add the files of one video, or none of them.

        Args:
            files: where each is, and its name in the shard.

        Raises:
            VideoError: one of them can't be read.
            UserError: the tar can't be written.
        """
        start, rows = self.bytes, len(self.rows)
        try:
            for path, name in files:
                self._add(path, name)
        except VideoError:
            self._file.seek(start)
            self._file.truncate()
            self.bytes = start
            del self.rows[rows:]
            raise
        self.videos += 1

    def _add(self, path: Path, name: str) -> None:
        if CONTROL.search(name):
            raise VideoError(path, "a control character in its name: rename it")
        try:
            with open_regular(path) as source:
                status = os.fstat(source.fileno())
                self._copy(source, path, name, status.st_size, max(0, status.st_mtime_ns // 10**9))
        except OSError as error:
            raise VideoError.of_system(path, error, "can't be read") from error

    def _copy(self, source: BinaryIO, path: Path, name: str, size: int, time: int) -> None:
        if size > LARGEST:
            raise VideoError(path, f"{size:,} bytes are too many for a member of a plain tar")
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, time, 0o644
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        offset, digest, left = self.bytes, hashlib.sha256(), size
        while left and (data := source.read(min(left, COPIED))):
            digest.update(data)
            self._write(data)
            left -= len(data)
        if left or source.read(1):
            raise VideoError(path, "changes while it is read")
        self._write(bytes(-size % tarfile.BLOCKSIZE))
        self.rows.append(row_of(name, Entry(self.number, offset, size, digest.hexdigest())))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise UserError(f"{self.path}: can't be written: {error.strerror}") from error
        self.bytes += len(data)
