"""Frame lists as PySlowFast reads them: a row for each extracted frame of each video.

`original_vido_id video_id frame_id path labels` (sic), with spaces between; `path` is that of an
image, `labels` the number of a class. The images of a video must be numbered one after the other,
and have the same name but for that number.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from timesformer.datasets.lists.records import Images, Records
from timesformer.datasets.lists.text_file import NOT_TEXT, names_no_file
from timesformer.utils.errors import AnnotationError
from timesformer.utils.files import is_file, open_regular
from timesformer.utils.retry import persistently

FIRST_COLUMN = b"original_vido_id"
HEADER = "original_vido_id video_id frame_id path labels"
LONGEST = 1 << 16  # bytes of a row
IMAGE_NUMBER = re.compile(r"(.*?)([0-9]{1,9})([^0-9.]*\.[^.]*)")  # the last one in an image's name


class Run(NamedTuple):
    """Rows that say the same of images whose numbers follow each other.

    Attributes:
        line: of the first row.
        where: its file and line.
        video: what stands first in each of them.
        folder: of the images.
        label: as text.
        name: of the first image.
        first: the number in it.
        rows: how many they are.
    """

    line: int
    where: str
    video: bytes
    folder: PurePosixPath
    label: str
    name: str
    first: int
    rows: int


def is_frame_list(path: Path) -> bool:
    """Tell whether a file is there and begins as a frame list.

    Raises:
        AnnotationError: it can't be read.
    """
    if not is_file(path):
        return False
    try:
        with persistently(lambda: open_regular(path), path) as file:
            return FIRST_COLUMN in _header(file)[:1]
    except OSError as error:
        raise AnnotationError(f"{path}: can't be read: {error.strerror}") from None


def image_name(first: str, number: int) -> str:
    """Return the name of an image with this number, beside the `first` one of its video."""
    parts = IMAGE_NUMBER.fullmatch(first)
    assert parts, first
    return f"{parts[1]}{number:0{len(parts[2])}d}{parts[3]}"


def read_frame_list(
    path: Path, classes: int, media: Path, labels: Mapping[str, int] | None = None
) -> Records:
    """Read a list with a row for each frame; the frames of a video are one record, their folder.

    Args:
        path: the list.
        classes: labels must be below it.
        media: folder that paths are relative to.
        labels: of each `original_vido_id`, in place of those in the list; videos that have none
            here are left out.

    Raises:
        AnnotationError: a row is malformed, the rows or images of a video don't follow each other,
            or they have another folder or label than its first one.
    """
    records, seen = Records(str(path)), set()
    video: Run | None = None

    def add(video: Run) -> None:
        images = Images(video.first, video.rows, video.name)
        label = int(video.label) if labels is None else labels.get(video.video.decode(), -1)
        if label >= 0:
            place = str(media / video.folder)
            if names_no_file(place, path):
                raise AnnotationError(f"{video.where}: {NOT_TEXT}")
            records.append(place, label, line=video.line, images=images)

    for run in runs(path):
        if video and run.video == video.video:
            video = _joined(video, run)
            continue
        if video:
            add(video)
        if run.folder in seen:
            raise AnnotationError(
                f"{run.where}: other rows of {str(run.folder)!r:.60} came before; sort them"
            )
        known = re.fullmatch("[0-9]{1,9}", run.label) and int(run.label) < classes
        if labels is None and not known:
            raise AnnotationError(
                f"{run.where}: the label must be a number from 0 to {classes - 1}, not "
                f"{run.label!r:.60}; lists without labels need labels.json and train.json or "
                "validation.json"
            )
        seen.add(run.folder)
        video = run
    if not video:
        raise AnnotationError(f"{path}: the list has no videos")
    add(video)
    return records


def _joined(video: Run, run: Run) -> Run:
    """Join further rows of a video, which are written in another way, to those before."""
    if (run.folder, run.label) != (video.folder, video.label):
        raise AnnotationError(
            f"{run.where}: folder {str(run.folder)!r:.60} and label {run.label!r:.60}, but "
            f"{str(video.folder)!r:.60} and {video.label!r:.60} in the video's first row"
        )
    if run.first != video.first + video.rows:
        raise AnnotationError(
            f"{run.where}: image {run.first} after {video.first + video.rows - 1}: the images of "
            "a video must be numbered one after the other; to choose some of them, copy or link "
            "them to a folder of their own"
        )
    if run.name != (name := image_name(video.name, run.first)):
        raise AnnotationError(
            f"{run.where}: {run.name!r:.60} where {name!r:.60} should follow: the images of a "
            "video must be named alike but for their number"
        )
    return video._replace(rows=video.rows + run.rows)


def runs(path: Path) -> Iterator[Run]:
    """Yield rows together that clearly say the same of image after image: rows are millions.

    Raises:
        AnnotationError: the list can't be read, or a row is malformed.
    """
    try:
        file = persistently(lambda: open_regular(path), path)
        with file:
            yield from _runs(path, file)
    except OSError as error:
        raise AnnotationError(f"{path}: can't be read: {error.strerror}") from None


def _header(file: BinaryIO) -> list[bytes]:
    return file.readline(LONGEST).removeprefix(codecs.BOM_UTF8).split()


def _runs(path: Path, file: BinaryIO) -> Iterator[Run]:
    header = _header(file)
    if header.count(b"path") != 1 or header.count(b"labels") != 1:
        raise AnnotationError(f"{path}, line 1: must be `{HEADER}`")
    run: Run | None = None
    begin, end, line, number = b"\n", b"%d", 1, 0  # how a row begins and ends that goes on
    while row := file.readline(LONGEST):
        line += 1
        if row.startswith(begin) and row.endswith(end % (number + 1)):
            number += 1
            continue
        if row.isspace():
            continue
        if run:
            yield run._replace(rows=number - run.first + 1)
        cells, where = row.split(), f"{path}, line {line}"
        if len(row) == LONGEST or len(cells) != len(header) or b"\0" in row:
            raise AnnotationError(f"{where}: must have {len(header)} columns")
        image, label = cells[header.index(b"path")], cells[header.index(b"labels")]
        try:
            name, text = image.decode(errors="surrogateescape"), label.decode().strip('"')
            cells[0].decode()
        except UnicodeDecodeError:
            raise AnnotationError(f"{where}: {NOT_TEXT}") from None
        folder = PurePosixPath(name).parent
        if not folder.name or ".." in folder.parts:
            raise AnnotationError(f"{where}: {name!r:.60} must be an image in a folder")
        found = IMAGE_NUMBER.fullmatch(name.rpartition("/")[2])
        if not found:
            raise AnnotationError(f"{where}: {name!r:.60} must be an image with a number")
        number = int(found[2])
        run = Run(line, where, cells[0], folder, text, found[0], number, 1)
        begin = cells[0] + b" "
        before = b" " + image[: len(image) - len((found[2] + found[3]).encode())]
        after = found[3].encode() + b" " + label + row[len(row.rstrip()) :]
        digits = b"%%0%dd" % len(found[2])
        end = before.replace(b"%", b"%%") + digits + after.replace(b"%", b"%%")
    if run:
        yield run._replace(rows=number - run.first + 1)
