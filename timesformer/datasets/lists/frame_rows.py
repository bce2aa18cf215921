"""Frame lists as PySlowFast reads them: a row for each extracted frame of each video.

`original_vido_id video_id frame_id path labels` (sic), with spaces between; `path` is that of an
image, `labels` the number of a class.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from timesformer.datasets.lists.records import Records
from timesformer.utils.errors import AnnotationError
from timesformer.utils.files import open_regular
from timesformer.utils.retry import persistently

LONGEST = 1 << 16  # bytes of a row


def read_frame_list(path: Path, classes: int, media: Path) -> Records:
    """Read a list with a row for each frame; the frames of a video are one record, their folder.

    Raises:
        AnnotationError: a row is malformed, the rows of a video aren't consecutive, or they have
            another folder or label than its first one.
    """
    records, seen = Records(str(path)), set()
    before: tuple[bytes, PurePosixPath, str] | None = None
    for line, where, video, frame, label in changing_rows(path):
        folder = PurePosixPath(frame).parent
        if not folder.name or ".." in folder.parts:
            raise AnnotationError(f"{where}: {frame!r:.60} must be an image in a folder")
        if before and video == before[0]:
            if before[1:] != (folder, label):
                raise AnnotationError(
                    f"{where}: folder {str(folder)!r:.60} and label {label!r:.60}, but "
                    f"{str(before[1])!r:.60} and {before[2]!r:.60} in the video's first row"
                )
            continue
        if folder in seen:
            raise AnnotationError(
                f"{where}: other rows of {str(folder)!r:.60} came before; sort them"
            )
        if not re.fullmatch("[0-9]{1,9}", label) or int(label) >= classes:
            raise AnnotationError(
                f"{where}: the label must be a number from 0 to {classes - 1}, not {label!r:.60}; "
                "lists without labels need labels.json and train.json or validation.json"
            )
        seen.add(folder)
        before = video, folder, label
        records.append(str(media / folder), int(label), line=line)
    if not records:
        raise AnnotationError(f"{path}: the list has no videos")
    return records


def changing_rows(path: Path) -> Iterator[tuple[int, str, bytes, str, str]]:
    """Yield (line, its name, video, frame, label) for the first row of each video.

    So for any other row that doesn't clearly say the same as the one before: rows are millions.
    """
    try:
        file = persistently(lambda: open_regular(path), path)
        with file:
            yield from _rows(path, file)
    except OSError as error:
        raise AnnotationError(f"{path}: can't be read: {error.strerror}") from None


def _rows(path: Path, file: BinaryIO) -> Iterator[tuple[int, str, bytes, str, str]]:
    header = file.readline(LONGEST).removeprefix(codecs.BOM_UTF8).split()
    if header.count(b"path") != 1 or header.count(b"labels") != 1:
        raise AnnotationError(
            f"{path}, line 1: must be `original_vido_id video_id frame_id path labels`"
        )
    video, folder, end, line = b"\n", b"", b"", 1
    while row := file.readline(LONGEST):
        line += 1
        if (row.startswith(video) and folder in row and row.endswith(end)) or row.isspace():
            continue
        cells, where = row.split(), f"{path}, line {line}"
        if len(row) == LONGEST or len(cells) != len(header) or b"\0" in row:
            raise AnnotationError(f"{where}: must have {len(header)} columns")
        image, label = cells[header.index(b"path")], cells[header.index(b"labels")]
        video, folder = cells[0] + b" ", b" %s/" % image.rpartition(b"/")[0]
        end = b" " + label + row[len(row.rstrip()) :]
        try:
            yield line, where, cells[0], image.decode(), label.decode().strip('"')
        except UnicodeDecodeError:
            raise AnnotationError(f"{where}: not UTF-8 text") from None
