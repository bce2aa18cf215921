"""Lists of videos that are asked about: paths alone, or lists of training without their labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from timesformer.datasets.lists.frame_rows import is_frame_list, read_frame_list
from timesformer.datasets.lists.label_reader import MOST, BadRowError, is_number
from timesformer.datasets.lists.provider_rows import csv_fields, is_provider_header
from timesformer.datasets.lists.records import Records
from timesformer.datasets.lists.row_parser import LABEL_COLUMNS, QUOTED
from timesformer.datasets.lists.row_paths import SUFFIX, is_video
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.lists.text_file import NOT_TEXT, is_odd, names_no_file, read_text
from timesformer.utils.errors import AnnotationError

NO_LABEL = -1
HEADERS = ("path", "video", "file")
_PATH_ALONE = re.compile(QUOTED)
_PATH = re.compile(rf"(?:{QUOTED}|(.+?{SUFFIX}))(?:\s*(?:[\s,;|]|::)\s*(\S.*))?")
_COLUMNS = re.compile(r"[\t,;|]|::")


def read_videos(path: Path) -> Records:
    """Read a list of videos whose labels, if it has any, play no part.

    A row is a path, perhaps in quotes, or one of `rows.read_list`, with labels of any kind; the
    provider's lists of Kinetics and those with a row a frame (`frame_rows`) are read too. Paths
    are relative to the current folder or, where none of them is there, to that of the list.

    Returns:
        Records with NO_LABEL. Those of folders have the images that count, where the list says it.

    Raises:
        AnnotationError: it can't be read, or has no video.
    """
    here = str(path.parent)
    if is_frame_list(path):
        return _from(_where_they_are(read_frame_list(path, MOST, Path(), _AnyLabel()), here), path)
    text = read_text(path, names=True)
    rows = [row for line in text.split("\n") if (row := line.strip(" \t\r"))]
    if rows and is_provider_header(rows[0]):
        return _from(_of_provider(path, rows, here), path)
    if rows[1:] and rows[0].lower() in HEADERS:
        del rows[0]
    alone = [_alone(row) for row in rows]
    if is_odd(text):
        _check_names(path, text)
    if rows and all(is_video(p) or _is_there(p, here) for p in alone):
        return _from(_where_they_are(_whole(alone), here), path)
    try:
        found = read_list(path, MOST)
    except AnnotationError:
        # Labels that a list of training would need a setting for: names, or several.
        videos = [*_before_labels(rows)]
        if None in videos or not any(video and _is_there(video, here) for video in videos):
            raise
        found = _whole([video for video in videos if video])
    return _from(_where_they_are(found, here), path)


def _check_names(path: Path, text: str) -> None:
    """Refuse rows that aren't UTF-8 where they begin with no file's name.

    Raises:
        AnnotationError: naming the line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        row = line.strip(" \t\r")
        if names_no_file(_alone(row), path):
            video = _PATH.fullmatch(row)
            if video is None or names_no_file(video[1] or video[2], path):
                raise AnnotationError(f"{path}, line {number}: {NOT_TEXT}")


class _AnyLabel(Mapping[str, int]):
    """Has a label for every video."""

    def __getitem__(self, key: str) -> int:
        return 0

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _alone(row: str) -> str:
    """Return the path of a row that is one: without quotes around it."""
    quoted = _PATH_ALONE.fullmatch(row)
    return quoted[1].replace('""', '"') if quoted else row


def _before_labels(rows: Sequence[str]) -> Iterator[str | None]:
    """Yield the path of each row that is a video file and labels, else None; no header.

    Behind the file are labels alone, numbers or names: columns of both say something else, e.g.
    which part of the video is meant.
    """
    for i, row in enumerate(rows):
        match = _PATH.fullmatch(row)
        if match is None:
            cells = [cell.strip().lower() for cell in _COLUMNS.split(row)]
            header = len(cells) == 2 and cells[0] in HEADERS and cells[1] in LABEL_COLUMNS
            if i or not header:
                yield None
            continue
        columns = [cell.strip() for cell in _COLUMNS.split(match[3] or "")]
        kinds = {_kind(cell) for cell in columns if cell}
        path = match[2] if match[1] is None else match[1].replace('""', '"')
        yield path if len(kinds) < 2 and "decimal" not in kinds else None


def _kind(column: str) -> str:
    if all(map(is_number, column.split())):
        return "number"
    return "decimal" if re.fullmatch(r"[-+]?\d*\.\d*", column) else "name"


def _of_provider(path: Path, rows: Sequence[str], here: str) -> Records:
    """Read a provider's list; the folders of its videos are in the current one or the list's."""
    columns, names = csv_fields(rows[0].lower()), set[str]()
    for row in rows[1:]:
        with suppress(BadRowError):  # which `read_list` tells, with its line
            names.add(dict(zip(columns, csv_fields(row), strict=False)).get("label", ""))
    for prefix in ("", here):
        found = read_list(path, MOST, prefix=prefix, class_names=sorted(names))
        if any(os.path.lexists(record.path) for record in found):
            break
    return found


def _where_they_are(found: Records, here: str) -> Records:
    """Return a list's videos where the first that is there lies, whichever are missing."""
    first = next((r.path for r in found if _is_there(r.path, here)), None)
    if first is None or os.path.lexists(first):
        return found
    moved = Records(found.source)
    for record in found:
        moved.append(str(Path(here) / record.path), NO_LABEL, images=record.images)
    return moved


def _from(found: Records, path: Path) -> Records:
    """Return the records without labels; of files without what counts of a folder only."""
    records = Records(str(path))
    for record in found:
        images = None if is_video(record.path) and not os.path.isdir(record.path) else record.images  # noqa: PTH112
        records.append(record.path, NO_LABEL, images=images)
    return records


def _whole(paths: Sequence[str]) -> Records:
    records = Records()
    for path in paths:
        records.append(path, NO_LABEL)
    return records


def _is_there(path: str, here: str) -> bool:
    return os.path.lexists(path) or os.path.lexists(Path(here) / path)
