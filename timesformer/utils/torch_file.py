"""Torch files that are written atomically, carry a digest, and are read without running code.

Such a file is a plain torch file, which torch.load reads anywhere; its SHA-256 stands in the
comment of the zip archive, because torch.load itself doesn't notice a flipped bit.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from timesformer.utils import sharded_file
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import (
    add_to_digest,
    is_folder,
    open_regular,
    sweep,
    sync_folder,
    temporary_of,
)
from timesformer.utils.retry import persistently
from timesformer.utils.tensors import stored_bytes

_MARK = b"timesformer-sha256:"
_COMMENT = len(_MARK) + 64
_CHUNK = 1 << 22
# Beside plain data: how timm, DINO and others keep their options.
_HARMLESS: list[Any] = [argparse.Namespace]


def write_checkpoint(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Write `payload` with a digest, so that `path` always is a whole file, the old or the new.

    It goes to the disk as torch makes it, so that writing takes no memory of its size.

    Raises:
        WeightsError: if the file can't be written, e.g. on a full disk; an earlier file stays.
        TypeError: if `payload` holds what `read_checkpoint` would refuse, e.g. a numpy number.
    """
    path = Path(path)
    try:
        persistently(lambda: _replace(path, payload), path)
    except OSError as error:
        disk = next(folder for folder in path.absolute().parents if folder.is_dir())
        raise WeightsError(
            f"{path}: can't write the checkpoint ({error.strerror}): it needs "
            f"{stored_bytes(payload):,} bytes, {shutil.disk_usage(disk).free:,} are free; earlier "
            "checkpoints are intact"
        ) from error


def _replace(path: Path, payload: Mapping[str, Any]) -> None:
    """Put `payload` at `path`, durably and in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.suffix)
    temporary = temporary_of(path)
    try:
        with _descriptor(temporary) as descriptor:
            stream: Any = _Stream(descriptor)  # of a file, what torch needs
            torch.save(dict(payload), stream)
            stream.end()
            os.fsync(descriptor)
        if refused := get_unsafe_globals_in_checkpoint(temporary):
            raise TypeError(
                f"{path}: only tensors and plain Python values can be read back: {refused}"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


class _Stream:
    """Where torch puts a file, piece by piece: the disk, with a digest of all that came.

    The archive ends in a 22-byte record whose last two bytes are the length of a comment, so two
    bytes are always held back. What the disk refuses is told at the end: torch would go on with the
    archive, and raise something else.

    Args:
        descriptor: of the file. Python's own files keep a buffer, which a worker process that is
            forked meanwhile would write too.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.digest = hashlib.sha256()
        self.last = b""
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Take a piece, and return its bytes."""
        size = memoryview(data).nbytes
        if size < _CHUNK:
            data, self.last = self.last + bytes(data), b""
        else:
            self._put(self.last)
        view = memoryview(data).cast("B")
        self._put(view[:-2])
        self.last = bytes(view[-2:])
        return size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def end(self) -> None:
        """Write the end of the archive, with the digest.

        Raises:
            OSError: it, or what came before, can't be written.
        """
        self._put(struct.pack("<H", _COMMENT))
        self._put(_MARK + self.digest.hexdigest().encode())
        if self.error:
            raise self.error

    def _put(self, data: bytes | memoryview) -> None:
        if self.error:
            return
        self.digest.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
        except OSError as error:
            self.error = error


_being_written: set[int] = set()


@contextlib.contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    """Open a file for writing, for this process alone.

    Worker processes that are forked meanwhile would keep it open, and with it the disk's space
    when the checkpoint is long deleted.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    _being_written.add(descriptor)
    try:
        yield descriptor
    finally:
        _being_written.discard(descriptor)
        os.close(descriptor)


def _close_all() -> None:
    while _being_written:
        os.close(_being_written.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


def stored_digest(path: str | Path) -> str:
    """Return the SHA-256 that a file carries, without checking it; "" if it carries none."""
    if is_folder(path):
        return sharded_file.stored_digest(Path(path))
    with contextlib.suppress(OSError), open_regular(path) as file:
        return _carried(file)
    return ""


def _carried(file: BinaryIO) -> str:
    """Return the digest at the end of a file, which is where reading stops; "" without one."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - _COMMENT))
    comment = file.read()
    return comment[len(_MARK) :].decode("ascii", "replace") if comment.startswith(_MARK) else ""


def check_digest(path: str | Path, required: bool) -> None:
    """Compare a file with its digest; a file without one passes unless it is `required`.

    Raises:
        WeightsError: if they differ, or the file can't be read.
    """
    if is_folder(path):
        sharded_file.check_parts(Path(path))
        return
    try:
        stored, digest = persistently(lambda: _digests(path), path)
    except OSError as error:
        raise WeightsError(f"{path}: can't read the checkpoint ({error.strerror})") from error
    if not stored and required:
        raise WeightsError(f"{path}: damaged or not written by this program: no digest")
    if stored != digest:
        raise WeightsError(f"{path}: damaged (its digest doesn't match its content)")


def _digests(path: str | Path) -> tuple[str, str]:
    """Return the digest that a file carries and that of its content; "" and "" without one.

    Raises:
        OSError: it can't be read.
    """
    with open_regular(path) as file:
        if not (stored := _carried(file)):
            return "", ""
        body = file.tell() - _COMMENT
        file.seek(0)
        digest = hashlib.sha256()
        add_to_digest(digest, file, body)
    return stored, digest.hexdigest()


def read_checkpoint(path: str | Path, require_digest: bool = False) -> dict[str, Any]:
    """Read a torch file onto the CPU, weights only: code in it is refused, never run.

    Args:
        path: the file, or the folder of a checkpoint in parts.
        require_digest: refuse files without a digest; one that is there is always checked.

    Raises:
        WeightsError: if the file is missing, damaged, or holds more than plain data.
    """
    if is_folder(path):
        return sharded_file.read_parts(Path(path))
    check_digest(path, require_digest)
    try:
        content = persistently(lambda: _load(path), path)
    except Exception as error:  # torch raises anything from UnpicklingError to KeyError here
        if _of_storage(error):
            why = f"can't read the checkpoint ({getattr(error, 'strerror', error)})"
        else:
            why = _why_unreadable(path)
        raise WeightsError(f"{path}: {why}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return content


def is_of_storage(error: WeightsError) -> bool:
    """Whether a file couldn't be read, which says nothing about what is in it."""
    return _of_storage(error.__cause__)


def _of_storage(error: BaseException | None) -> bool:
    # A damaged archive sends its reader to places before its beginning: EINVAL.
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _load(path: str | Path) -> Any:
    # From a file of Python's, whose errors say what the system said.
    with open_regular(path) as file, safe_globals(_HARMLESS):
        return torch.load(file, map_location="cpu", weights_only=True)


def _why_unreadable(path: str | Path) -> str:
    """In our words, because torch's own message advises to run the code in the file."""
    # What the file is made of decides what is raised.
    with contextlib.suppress(Exception), safe_globals(_HARMLESS):
        if refused := get_unsafe_globals_in_checkpoint(path):
            names = ", ".join(refused)
            if any(name.startswith("mmengine.") for name in refused):
                return (
                    f"refused: a checkpoint of mmengine with its logs ({names}); let mmaction2's "
                    "tools/deployment/publish_model.py IN_FILE OUT_FILE make a file of weights "
                    "alone"
                )
            return f"refused: beside weights it holds code or objects ({names}); save weights alone"
    return "not a readable weights file (cut short, damaged, or of another format)"
