"""Frame lists as PySlowFast reads them: a row for each extracted frame of each video.

`original_vido_id video_id frame_id path labels` (sic), with spaces between; `path` is that of an
image, `labels` the number of a class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from timesformer.datasets.lists.records import Records
from timesformer.utils.errors import AnnotationError


def read_frame_list(path: Path, classes: int, media: Path) -> Records:
    """Read a list with a row for each frame; the frames of a video are one record, their folder.

    Raises:
        AnnotationError: a row is malformed, or the rows of a video aren't consecutive.
    """
    records, seen = Records(str(path)), set()
    for line, where, frame, label in first_rows(path):
        folder = PurePosixPath(frame).parent
        if not folder.name or ".." in folder.parts:
            raise AnnotationError(f"{where}: {frame!r:.60} must be an image in a folder")
        if folder in seen:
            raise AnnotationError(f"{where}: other rows of {str(folder)!r} came before; sort them")
        if not re.fullmatch("[0-9]{1,9}", label) or int(label) >= classes:
            raise AnnotationError(
                f"{where}: the label must be a number from 0 to {classes - 1}, not {label!r:.60}; "
                "lists without labels need labels.json and train.json or validation.json"
            )
        seen.add(folder)
        records.append(str(media / folder), int(label), line=line)
    if not records:
        raise AnnotationError(f"{path}: the list has no videos")
    return records


def first_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, its name, frame, label) for the first row of each video; rows are millions."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise AnnotationError(f"{path}: can't be read: {error.strerror}") from None
    with file:
        header = file.readline().split()
        if b"path" not in header or b"labels" not in header:
            raise AnnotationError(
                f"{path}, line 1: must be `original_vido_id video_id frame_id path labels`"
            )
        video = b"\n"
        for line, row in enumerate(file, 2):
            if row.startswith(video) or row.isspace():
                continue
            cells, where = row.split(), f"{path}, line {line}"
            if len(cells) != len(header) or b"\0" in row:
                raise AnnotationError(f"{where}: must have {len(header)} columns")
            video = cells[0] + b" "
            try:
                frame = cells[header.index(b"path")].decode()
                label = cells[header.index(b"labels")].decode().strip('"')
            except UnicodeDecodeError:
                raise AnnotationError(f"{where}: not UTF-8 text") from None
            yield line, where, frame, label
