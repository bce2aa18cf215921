"""Lists of labelled videos and lists of class names.

A list is a text file with one video a row, `path label`: no header, labels are integers from 0.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from timesformer.utils.errors import AnnotationError, ConfigError

LABELS_DIR = Path(__file__).parent / "labels"


class Record(NamedTuple):
    """One video and its class."""

    path: str
    label: int


def read_list(
    path: str | os.PathLike[str], num_classes: int, separator: str = " ", prefix: str = ""
) -> list[Record]:
    """Read a list of videos.

    A row is split at its last separator, so paths may contain it. Blank rows are ignored.

    Args:
        path: the list.
        num_classes: labels must be below it.
        separator: what stands between path and label (DATA.PATH_LABEL_SEPARATOR).
        prefix: folder that the paths are relative to (DATA.PATH_PREFIX).

    Raises:
        AnnotationError: naming the file and, for a bad row, its line.
    """
    records = []
    for number, line in enumerate(_read_text(Path(path)).split("\n"), start=1):
        row = line.strip()
        if not row:
            continue
        video, found, label_text = row.rpartition(separator)
        video, label_text = video.rstrip(), label_text.strip()
        if not found or not video:
            raise AnnotationError(
                f"{path}, line {number}: no label in {row!r}; "
                f"a row is 'path{separator}label' (DATA.PATH_LABEL_SEPARATOR is {separator!r})"
            )
        try:
            label = int(label_text)
        except ValueError:
            raise AnnotationError(
                f"{path}, line {number}: the label {label_text!r} is not an integer"
            ) from None
        if not 0 <= label < num_classes:
            raise AnnotationError(
                f"{path}, line {number}: label {label} is not in 0..{num_classes - 1}; "
                f"MODEL.NUM_CLASSES is {num_classes}"
            )
        records.append(Record(os.path.join(prefix, video) if prefix else video, label))  # noqa: PTH118
    if not records:
        raise AnnotationError(f"{path}: the list has no videos")
    return records


def read_class_names(source: str, num_classes: int) -> tuple[str, ...]:
    """Read class names in label order.

    Args:
        source: DATA.CLASS_NAMES, a text file with a name a line or the name of a shipped list;
            empty for none.
        num_classes: how many names there must be.

    Returns:
        The names; () where `source` is empty.

    Raises:
        AnnotationError: the file can't be read.
        ConfigError: there is no such list, or it has another number of names.
    """
    if not source:
        return ()
    path = Path(source)
    if not path.is_file():
        path = LABELS_DIR / f"{source}.txt"
        shipped = sorted(file.stem for file in LABELS_DIR.glob("*.txt"))
        if source not in shipped:
            raise ConfigError(
                f"DATA.CLASS_NAMES {source!r} is neither a file nor a shipped list "
                f"({', '.join(shipped)})"
            )
    names = tuple(line.strip() for line in _read_text(path).rstrip().split("\n"))
    if len(names) != num_classes:
        raise ConfigError(
            f"DATA.CLASS_NAMES {source!r} has {len(names)} names, "
            f"but MODEL.NUM_CLASSES is {num_classes}"
        )
    return names


def _read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without byte order mark."""
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
