"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from timesformer.utils.errors import UserError
from timesformer.utils.processes import is_alive

if TYPE_CHECKING:
    import hashlib

NOT_REGULAR = "not a regular file, but a FIFO, a socket or a device"
BLOCK = 1 << 16  # bytes of a log that are read at once
HASHED = 1 << 22  # bytes of a file that are read at once for its digest
LOCK_NAME = ".lock"  # of the file that `run_lock` holds a folder with
MANIFEST = "checkpoint.json"  # of a checkpoint in parts, see `sharded_file`
RUN_HOLDS = "a run's folder holds stats.jsonl, run.log and checkpoints/"
HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "unnamed"
_KEPT = 40  # characters of a name, at its end: with what is added it mustn't be too long
_TEMPORARY = re.compile(r"\..*\.([A-Za-z0-9-]+)\.(\d+)\.tmp")
_DAY = 86400.0  # seconds
_swept: set[Path] = set()  # folders that this process has looked into


def expand_home(path: str | os.PathLike[str]) -> str:
    """Return a path with the home folder for `~`; one that no file can have comes back as it is."""
    try:
        return os.path.expanduser(path)  # noqa: PTH111  (Path's raises where there is no such user)
    except ValueError:  # a NUL, or half a character
        return os.fspath(path)


def temporary_of(path: Path) -> Path:
    """Return where this process writes a file, or a folder, until it is complete."""
    return path.with_name(f".{path.name[-_KEPT:]}.{HOST[-_KEPT:]}.{os.getpid()}.tmp")


def sweep(folder: Path, suffix: str = "") -> None:
    """Delete what processes left that were killed, and nothing that another one still writes.

    A process of this machine is asked for by its number; another machine's file, or one without
    a machine's name, goes once nobody has written to it for a day.

    Args:
        folder: where files of results are.
        suffix: of those that are meant.
    """
    for path in folder.glob(f".*{suffix}.*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to delete
            if found is None:
                continue
            if found[1] == HOST[-_KEPT:]:
                stale = not is_alive(int(found[2]))
            else:
                stale = time.time() - path.stat().st_mtime > _DAY
            if stale and path.is_dir():
                shutil.rmtree(path)
            elif stale:
                path.unlink()


def remove(path: Path) -> None:
    """Delete a file, or a folder with all in it, which loses its name first, if it is there.

    Of a link the link alone goes.
    """
    if path.is_symlink() or not is_folder(path):
        path.unlink(missing_ok=True)
        return
    doomed = temporary_of(path.with_name(f"{path.name}.old"))
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.rename(doomed)
        shutil.rmtree(doomed)


def sync_folder(path: Path) -> None:
    """Let the disk have the names of a folder's files."""
    with contextlib.suppress(OSError):  # some network file systems can't
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def make_folder(path: Path) -> Path:
    """Make a folder for results, and those it is in, if it isn't there; return it.

    Raises:
        UserError: it can't be made, or written to. Ask before the work is done whose results go
            there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{path}: is there and is no folder; name another place") from None
    except NotADirectoryError:
        file = next(p for p in path.parents if os.path.lexists(p))
        raise UserError(f"{path}: can't make this folder: {file} is no folder") from None
    except OSError as error:
        raise UserError(f"{path}: can't make this folder: {error.strerror}") from error
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"{path}: can't write to this folder: {error.strerror}") from error
    return path


def make_places(folder: Path, names: Iterable[str]) -> Path:
    """Make a folder, as `make_folder` does, that files of results of these names will be in.

    Raises:
        UserError: as there; or something else has one of the names.
    """
    make_folder(folder)
    for name in names:
        require_place(folder / name)
    return folder


def make_place(path: Path) -> Path:
    """Make the folder that a file of results will be in; return the file's path.

    Raises:
        UserError: no file can be written there. Ask before the work is done whose results it has.
    """
    make_folder(path.parent)
    require_place(path)
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # e.g. its name is too long
        raise UserError(f"{path}: can't write this file: {error.strerror}") from error
    return path


def require_place(path: Path) -> None:
    """Refuse what a file of results mustn't replace.

    Raises:
        UserError: a folder, a FIFO or a device is there.
    """
    if is_folder(path):
        raise UserError(f"{path}: is a folder, and a file is to be written there")
    if os.path.exists(path) and not is_file(path):  # noqa: PTH110  (/dev/null)
        raise UserError(f"{path}: {NOT_REGULAR}, and a file is to be written there")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading that is one; a FIFO or device is refused, for it may never answer.

    Raises:
        OSError: it isn't a regular file, or can't be opened; `strerror` says what is wrong.
    """
    require_regular(path)
    # Should it be replaced by a FIFO in between, opening it mustn't wait either.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, NOT_REGULAR, os.fspath(path))
    return file


def require_regular(path: str | os.PathLike[str]) -> None:
    """Make sure that a path leads to a regular file.

    Raises:
        OSError: it doesn't, or there is nothing; `strerror` says what is wrong.
    """
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # a NUL, or half a character
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, NOT_REGULAR, os.fspath(path))


def is_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is that of a file; a name that can't be one's is not.

    `Path.is_file` raises for a name that is too long, or in a folder that mustn't be read.
    """
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is that of a folder, as `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def is_in_parts(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is that of a checkpoint in parts, which is a folder."""
    return is_file(Path(path) / MANIFEST)


def stored_size(path: Path) -> int:
    """Return the bytes of a file, or of a folder's files."""
    files = path.iterdir() if is_folder(path) else (path,)
    return sum(file.stat().st_size for file in files)


def is_inside(folder: str, path: str) -> bool:
    """Tell whether an absolute path lies in an absolute folder, or is it, as text."""
    try:
        return os.path.commonpath([folder, path]) == os.path.commonpath([folder])
    except ValueError:  # on another drive
        return False


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whole; names of files that aren't text come back as they were."""
    with (
        written_whole(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)


@contextmanager
def written_whole(path: Path, synced: bool = False) -> Iterator[Path]:
    """Give a place to write to, which becomes `path` at the end unless something is raised.

    The place is this process's own. What others left in the folder that were killed goes.
    Checkpoints have a digest as well: see `torch_file`.

    Args:
        path: the file.
        synced: the disk has it before it gets its name, for what takes long to make again.

    Raises:
        UserError: a folder or a device is there.
    """
    require_place(path)
    partial, folder = temporary_of(path), path.absolute().parent
    if folder not in _swept:  # once: there may be very many files
        _swept.add(folder)
        sweep(folder)
    try:
        yield partial
        if synced:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # writing itself doesn't say what it writes
        if error.errno is not None and error.filename is None:
            try:
                error.filename = str(path)
            except AttributeError:  # PyAV's can't be told
                raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file; what a killed run left of its last line is cut off first."""
    with path.open("ab+") as file:
        file.truncate(_end_of_lines(file))
        file.write(line.encode() + b"\n")


def _end_of_lines(file: BinaryIO) -> int:
    """Return how many bytes of a file are whole lines."""
    start = file.seek(0, os.SEEK_END)
    while start:
        end, start = start, max(0, start - BLOCK)
        file.seek(start)
        if (newline := file.read(end - start).rfind(b"\n")) >= 0:
            return start + newline + 1
    return 0


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def add_to_digest(digest: hashlib._Hash, file: _Readable, size: int | None = None) -> None:
    """Add what is left of a file to a digest, or its next `size` bytes."""
    left = float("inf") if size is None else size
    while left and (some := file.read(int(min(HASHED, left)))):
        digest.update(some)
        left -= len(some)
