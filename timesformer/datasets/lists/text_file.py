"""Reading text files, with errors that name the line."""

from __future__ import annotations

import codecs
import os
import re
from os import PathLike
from pathlib import Path

from timesformer.utils.errors import AnnotationError
from timesformer.utils.files import open_regular
from timesformer.utils.remote import as_url, is_url, read_remote
from timesformer.utils.retry import persistently

NOT_TEXT = "not UTF-8 text"
NO_DATA_DIR = "DATA.PATH_TO_DATA_DIR is empty: set it to the folder of the lists or annotations"


_ODD = re.compile("[\udc80-\udcff]")  # bytes that aren't UTF-8, as Python has names of files


def read_text(path: str | PathLike[str], names: bool = False) -> str:
    """Read a UTF-8 text file, with or without byte order mark; its path may be a URL.

    Args:
        path: the file.
        names: other bytes are taken as the system has them in names of files; `names_no_file` says
            which of those are none.

    Raises:
        AnnotationError: it is missing, can't be read or isn't text; names the line.
    """
    remote = is_url(path)
    path = Path(path)

    def read() -> bytes:
        if remote:
            return read_remote(os.fspath(path))
        with open_regular(path) as file:
            return file.read()

    try:
        data = persistently(read, path)
    except FileNotFoundError:
        if remote:
            raise AnnotationError(f"{as_url(path)}: there is no such list") from None
        raise AnnotationError(f"{path}: there is no such list; {_advice(path.parent)}") from None
    except OSError as error:
        name = as_url(path) if remote else path
        raise AnnotationError(f"{name}: can't be read: {error.strerror}") from error
    except ValueError as error:  # NUL in the name
        raise AnnotationError(f"{str(path)!r}: can't be read: {error}") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise AnnotationError(f"{path}: text in UTF-16, or 32: save it as UTF-8")
    nul = data.find(b"\0")
    if nul >= 0:
        raise AnnotationError(f"{path}, line {_line(data, nul)}: a NUL character")
    try:
        return data.decode("utf-8-sig", "surrogateescape" if names else "strict")
    except UnicodeDecodeError as error:
        where = _line(data, error.start)
        raise AnnotationError(f"{path}, line {where}: {NOT_TEXT}") from error


def is_odd(text: str) -> bool:
    """Tell whether text has bytes that aren't UTF-8."""
    return not text.isascii() and _ODD.search(text) is not None


def names_no_file(name: str, source: str | PathLike[str]) -> bool:
    """Tell whether a name isn't UTF-8, and no file's either, here or beside its list.

    A list in another encoding than UTF-8 has such.
    """
    if not is_odd(name):  # millions of rows aren't
        return False
    return not (os.path.lexists(name) or os.path.lexists(Path(source).parent / name))


def _advice(folder: Path) -> str:
    if folder == Path():
        return NO_DATA_DIR
    advice = "DATA.PATH_TO_DATA_DIR must be the folder that has it"
    try:
        in_folders = any(path.is_dir() for path in folder.iterdir())
    except OSError:
        return advice
    if in_folders:
        advice += (
            "; if its folders hold the videos of a class each, set TRAIN.DATASET and TEST.DATASET "
            "to videofolder"
        )
    return advice


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
