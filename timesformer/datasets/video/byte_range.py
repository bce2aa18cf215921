"""A member of a tar as a file of its own: what decoders read, bounded to its bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

from timesformer.utils.errors import VideoError
from timesformer.utils.files import open_regular
from timesformer.utils.remote import remote_range

BLOCK = 512  # bytes; a tar is made of such, and one of them says what follows it
NAME = 100  # bytes of it
Fetch = Callable[[int, int], bytes]


class ByteRange(io.RawIOBase):
    """A file that can be read and sought in, as PyAV and torchcodec take it; not by two threads.

    Attributes:
        name: its path in the shard, by whose ending FFmpeg tells some formats.
        size: in bytes.
        failed: what a read raised. FFmpeg goes on after some of them, as if the file ended there:
            whoever opens a decoder must look.
    """

    def __init__(self, name: str, size: int, fetch: Fetch, close: Callable[[], object]) -> None:
        """Make one.

        Args:
            name: its path in the shard.
            size: in bytes.
            fetch: reads bytes [i, j), and raises if it can't read all of them.
            close: is called at the end.
        """
        self.name = name
        self.size = size
        self.failed: Exception | None = None
        self._fetch = fetch
        self._give_back = close
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set where the next read begins, and return it."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"before the beginning: {at}")
        self._at = at
        return at

    def read(self, count: int = -1) -> bytes:
        """Read so many bytes, or those that are left; b"" at the end.

        Raises:
            OSError: storage fails.
            VideoError: the shard has become shorter.
        """
        end = self.size if count < 0 else min(self.size, self._at + count)
        if self._at >= end:
            return b""
        try:
            data = self._fetch(self._at, end)
        except Exception as error:
            self.failed = error
            raise
        self._at = end
        return data

    def close(self) -> None:
        """Give back what it holds."""
        if not self.closed:
            self._give_back()
        super().close()


def open_local(what: str, shard: str, name: str, offset: int, size: int) -> ByteRange:
    """Open a member of a tar on a disk.

    Args:
        what: the member, for messages.
        shard: path of the tar.
        name: of the member in it.
        offset: of its first byte.
        size: in bytes.

    Raises:
        VideoError: the tar isn't there, too short, or has something else at that place.
    """
    try:
        file = open_regular(shard)
    except OSError as error:
        raise VideoError.of_system(what, error, "its shard can't be opened") from error

    def fetch(start: int, end: int) -> bytes:
        # The position of a descriptor is shared with processes that are forked meanwhile.
        data = _read_at(file.fileno(), end - start, offset + start)
        return _whole(what, data, start, end)

    try:
        _check(what, name, size, _read_at(file.fileno(), BLOCK, offset - BLOCK))
        there = os.fstat(file.fileno()).st_size
        if there < offset + size:
            raise VideoError(what, f"its shard ends after {there:,} bytes, before this file does")
    except BaseException:
        file.close()
        raise
    return ByteRange(name, size, fetch, file.close)


def open_remote(what: str, shard: str, name: str, offset: int, size: int) -> ByteRange:
    """Open a member of a tar behind a URL, as `open_local`; blocks are read as they are needed.

    Raises:
        VideoError: the tar can't be read, is too short, or has something else at that place.
    """
    blocks = remote_range(shard, offset - BLOCK, BLOCK + size)

    def fetch(start: int, end: int) -> bytes:
        return _whole(what, blocks(BLOCK + start, BLOCK + end), start, end)

    try:
        header = blocks(0, BLOCK)
    except OSError as error:
        raise VideoError.of_system(what, error, "its shard can't be read") from error
    _check(what, name, size, header)
    return ByteRange(name, size, fetch, lambda: None)


def _whole(what: str, data: bytes, start: int, end: int) -> bytes:
    if len(data) < end - start:
        raise VideoError(what, f"its shard ends after {start + len(data):,} bytes of this file")
    return data


def _check(what: str, name: str, size: int, header: bytes) -> None:
    """Make sure that the header before a member says what the index says.

    A tar that another one has replaced may be as long.
    """
    said = header[:NAME].rstrip(b"\0"), header[124:136].strip(b"\0 ")
    # So far a tar has a name in its header; longer ones, and other letters, are in one before it.
    wanted = name.encode("ascii", "replace")[:NAME], b"%011o" % size
    if len(header) < BLOCK or said != wanted:
        raise VideoError(what, "its shard has another file there than the index says")


def _read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read so many bytes, fewer at the end of the file alone."""
    data = b""
    while len(data) < count:
        left, at = count - len(data), offset + len(data)
        if hasattr(os, "pread"):
            part = os.pread(descriptor, left, at)
        else:  # Windows, which doesn't fork
            os.lseek(descriptor, at, os.SEEK_SET)
            part = os.read(descriptor, left)
        if not part:
            break
        data = data + part if data else part
    return data
