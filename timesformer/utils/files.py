"""Files that are whole or not there at all."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from timesformer.utils.errors import UserError


def temporary_of(path: Path) -> Path:
    """Return where a file is written until it is complete."""
    return path.with_name(f".{path.name}.tmp")


def make_folder(path: Path) -> Path:
    """Make a folder for results, and those it is in, if it isn't there; return it.

    Raises:
        UserError: it can't be made. Ask before the work is done whose results go there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't make this folder: {error.strerror}") from error
    return path


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
def written_whole(path: Path) -> Iterator[Path]:
    """Give a place to write to, which becomes `path` at the end unless something is raised.

    For what can be made again. Checkpoints are synced to the disk as well: see `torch_file`.
    """
    partial = temporary_of(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
