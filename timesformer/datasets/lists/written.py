"""Writing lists of videos, as `rows.py` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from timesformer.utils.files import written_whole


def list_path(path: str, prefix: str) -> str:
    """Return a record's path as it stands in its list: without DATA.PATH_PREFIX."""
    for separator in ("/", os.sep) if prefix else ():
        folder = prefix.rstrip(f"/{os.sep}") + separator
        if path.startswith(folder):
            return path.removeprefix(folder).replace(os.sep, "/")
    return path


def write_list(
    path: Path, rows: Iterable[tuple[str, int | tuple[int, ...]]], separator: str, multi_label: bool
) -> None:
    """Write rows `path label`, or `path 3,17`, for `read_list` with the same arguments."""
    if separator == "," and multi_label:
        separator = " "
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        for video, label in rows:
            text = str(label) if isinstance(label, int) else ",".join(map(str, label))
            file.write(f"{video}{separator}{text}\n")
