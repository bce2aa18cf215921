"""Writing lists of videos, as `rows.py` reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from timesformer.datasets.lists.frame_rows import HEADER, image_name
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.lists.row_paths import CONTROL, PLAIN, has_extension
from timesformer.utils.errors import AnnotationError
from timesformer.utils.files import written_whole


def list_path(path: str, prefix: str) -> str:
    """Return a record's path as it stands in its list: without DATA.PATH_PREFIX."""
    for separator in ("/", os.sep) if prefix else ():
        folder = prefix.rstrip(f"/{os.sep}") + separator
        if path.startswith(folder):
            return path.removeprefix(folder).replace(os.sep, "/")
    return path


def write_list(path: Path, records: Iterable[Record], separator: str, multi_label: bool) -> None:
    """Write rows `path label`, or `path 3,17`, for `read_list` with the same arguments.

    A path that could be parted in another way is put in quotes. Folders of frames keep their parts,
    but not with several labels; of a part of a file, which lists have no form for, the whole file
    is written. Images that are known by their names are for `write_frame_list`.

    Raises:
        AnnotationError: a path has a line break or another control character.
    """
    if separator == "," and multi_label:
        separator = " "
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        for video, label, start, end, images in records:
            if CONTROL.search(video):
                raise AnnotationError(
                    f"{video!r:.200}: a list can't have such a name: rename the file"
                )
            assert not (images and images.name), f"images of {video} by their names"
            fields = [_quoted(video, separator)]
            if images is None and end is not None and not has_extension(video):
                images = Images(start, end - start)
            if images is not None and not multi_label:
                first = images.first
                if first and has_extension(video):  # a folder with a dot: see the parser
                    fields = [_in_quotes(video)]
                fields += [str(first), str(images.length)] if first else [str(images.length)]
            fields.append(str(label) if isinstance(label, int) else ",".join(map(str, label)))
            file.write(separator.join(fields) + "\n")


def write_frame_list(path: Path, records: Iterable[Record]) -> None:
    """Write a row for each image of folders whose images are known by their names.

    Raises:
        AnnotationError: a path has a blank, which parts the columns.
    """
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        file.write(f"{HEADER}\n")
        for number, (folder, label, _, _, images) in enumerate(records):
            assert images is not None
            if re.search(r"\s", folder + images.name):
                raise AnnotationError(
                    f"{folder!r:.200}: a frame list can't have blanks in a path: set "
                    "DATA.PATH_PREFIX to the folder up to there, or rename it"
                )
            for frame in range(images.length):
                image = image_name(images.name, images.first + frame)
                file.write(f"{number} {number} {frame} {folder}/{image} {label}\n")


def _quoted(video: str, separator: str) -> str:
    if re.fullmatch(PLAIN, video) and not (separator.strip() and separator in video):
        return video
    return _in_quotes(video)


def _in_quotes(video: str) -> str:
    return '"' + video.replace('"', '""') + '"'
