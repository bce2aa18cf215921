"""Reading text files, with errors that name the line."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from timesformer.utils.errors import AnnotationError


def read_text(path: str | PathLike[str]) -> str:
    """Read a UTF-8 text file, with or without byte order mark.

    Raises:
        AnnotationError: it is missing, can't be read or isn't text; names the line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(
            f"{path}: there is no such list; DATA.PATH_TO_DATA_DIR must be the folder that has it"
        ) from None
    except OSError as error:
        raise AnnotationError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:  # NUL in the name
        raise AnnotationError(f"{str(path)!r}: can't be read: {error}") from error
    nul = data.find(b"\0")
    if nul >= 0:
        raise AnnotationError(f"{path}, line {_line(data, nul)}: a NUL character")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = _line(data, error.start)
        raise AnnotationError(f"{path}, line {where}: not UTF-8 text") from error


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
