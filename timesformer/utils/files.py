"""Files that are whole or not there at all."""

from __future__ import annotations

import csv
import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from timesformer.utils.errors import UserError

NOT_REGULAR = "not a regular file, but a FIFO, a socket or a device"
LOCK_NAME = ".lock"  # of the file that `run_lock` holds a folder with
RUN_HOLDS = "a run's folder holds stats.jsonl, run.log and checkpoints/"


def expand_home(path: str | os.PathLike[str]) -> str:
    """Return a path with the home folder for `~`; one that no file can have comes back as it is."""
    try:
        return os.path.expanduser(path)  # noqa: PTH111  (Path's raises where there is no such user)
    except ValueError:  # a NUL, or half a character
        return os.fspath(path)


def temporary_of(path: Path) -> Path:
    """Return where a file is written until it is complete."""
    return path.with_name(f".{path.name}.tmp")


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
        temporary_of(path).lstat()  # which may be that of another process: look, and leave it
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

    Checkpoints have a digest as well: see `torch_file`.

    Args:
        path: the file.
        synced: the disk has it before it gets its name, for what takes long to make again.

    Raises:
        UserError: a folder or a device is there.
    """
    require_place(path)
    partial = temporary_of(path)
    try:
        yield partial
        if synced:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # writing itself doesn't say what it writes
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
