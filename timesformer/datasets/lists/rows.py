"""Lists of labelled videos: text files with one video a row, in the forms people have them.

A row is `path label`. The label is what follows the last separator, so a path may contain it.

    videos/abc.mp4 17             one or several spaces; tabs, commas and `::` do as well, whatever
    my videos/abc.mp4,17          DATA.PATH_LABEL_SEPARATOR says: the separators are tried in the
    "a, b.mp4",17                 order configured, `::`, tab, comma, space, and the first that
    videos/abc.mp4::17            leaves a label wins, and is tried first in the rows below
    frames/abc 300 17             number of frames, label, as in mmaction2: the first 300 images
    frames/abc 12 300 17          offset, number of frames, label: 300 images after the first 12
    videos/abc.mp4 300 17         the number says nothing of a file; there is no offset
    videos/abc.mp4 air drumming   a class name (DATA.CLASS_NAMES), also written air_drumming
    air_drumming/abc.mp4          no label: the folder is the class, as in UCF101's testlist
    videos/abc.mp4 3,17           several labels (DATA.MULTI_LABEL), numbers or names; after a file
    videos/abc.mp4 3 17 5         extension spaces do as well. Without MULTI_LABEL both are refused

Numbers of frames hold where the path is a folder of images, and all that they say must be there,
numbered one after the other. Of a file with a number and another without, one label was likely
meant by one and two by the other: without MULTI_LABEL these are refused.

What could be read in two ways is refused, not guessed: a path that ends in a number or a class
name apart ("frames/abc 3,17", "frames/abc air drumming 17"), text behind a file's extension, a
number with a separator in front, columns that have other names. A path in quotes is what stands
there, whatever that is; so is one before a DATA.PATH_LABEL_SEPARATOR other than a space, unless a
file's extension or the separator itself is in it.

Labels are numbers from 0, in the digits 0-9; a number is never taken for a class name. Blank rows
are ignored, and so is a first row such as `path,label`. Text is UTF-8, with or without byte order
mark or CR, but for names of files that are there; other control characters are refused.

The provider's files of Kinetics, with columns label, youtube_id, time_start and time_end, are read
too. The videos are `<youtube_id>_%06d_%06d.mp4`, times in seconds, in folders of their classes, if
there are such, or all in one; either may lie in a folder of the list's name, or of the split that
its rows name.

Paths are checked as text alone: a million rows load in seconds, and a missing video shows later.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from timesformer.datasets.lists.label_reader import BadRowError, LabelReader
from timesformer.datasets.lists.provider_rows import ProviderParser, is_provider_header
from timesformer.datasets.lists.records import Images, Records
from timesformer.datasets.lists.row_parser import Row, RowParser, is_header
from timesformer.datasets.lists.row_paths import CONTROL, has_extension
from timesformer.datasets.lists.text_file import NOT_TEXT, is_odd, names_no_file, read_text
from timesformer.utils.errors import AnnotationError

LONGEST = 100_000  # characters of a row; bounds the time that a hostile one can take


def read_list(
    path: str | os.PathLike[str],
    num_classes: int,
    *,
    separator: str = " ",
    prefix: str = "",
    class_names: Sequence[str] = (),
    multi_label: bool = False,
) -> Records:
    """Read a list of videos; the module's docstring says what it may look like.

    Args:
        path: the list.
        num_classes: labels must be below it.
        separator: what stands between path and label (DATA.PATH_LABEL_SEPARATOR).
        prefix: folder that the paths are relative to and must stay in (DATA.PATH_PREFIX).
        class_names: in label order; needed where labels are names (DATA.CLASS_NAMES).
        multi_label: each video has a tuple of labels, sorted (DATA.MULTI_LABEL).

    Raises:
        AnnotationError: naming the file and, for a bad row, its line.
    """
    records = Records(str(path), multi_label)
    read_label = LabelReader(num_classes, class_names, multi_label)
    rows = RowParser(separator, read_label)
    parse: Callable[[str], Row] = rows
    plain: Callable[[str], Row | None] | None = rows.plain
    begun = False
    folder = os.path.join(prefix, "") if prefix else ""  # noqa: PTH118
    hashes = array("q")  # of the videos' names: a set of the names would take 200 bytes a row
    files: dict[bool, int] = {}  # first line of a file with a number before its label, and without
    for number, line in enumerate(_lines(read_text(path, names=True)), start=1):
        try:
            if found := plain and plain(line):
                video, label, images = found
            else:
                row = line.strip(" \t\r")
                if not row:
                    continue
                _check_row(row)
                if not begun:
                    begun = True
                    if is_provider_header(row):
                        parse = ProviderParser(row, Path(prefix), Path(path).stem, read_label)
                        plain = None
                        continue
                    if is_header(row, rows.separators, read_label):
                        continue
                video, label, images = parse(row)
            begun = True
            counted = images is not None
            if not multi_label and counted not in files and has_extension(video):
                files[counted] = number
                if len(files) == 2:
                    raise _perhaps_labels(files)
            if folder:
                video = _inside(prefix, folder, video)
            if names_no_file(video, path):
                raise BadRowError(NOT_TEXT)
        except BadRowError as error:
            _check_repeats(path, records, hashes)  # the first bad row is told
            why = NOT_TEXT if is_odd(line) else error
            raise AnnotationError(f"{path}, line {number}: {why}") from None
        hashes.append(hash(_known_by(video, images)))
        records.append(video, label, line=number, images=images)
    _check_repeats(path, records, hashes)
    if not records:
        what = "nothing but a header" if begun else "it is empty"
        raise AnnotationError(f"{path}: the list has no videos: {what}")
    return records


def _lines(text: str) -> Iterator[str]:
    """Yield what `split` would list: ten million lines are a gigabyte."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _known_by(video: str, images: Images | None) -> str:
    """Return what tells videos apart; several parts of a folder are several videos."""
    same = os.path.normpath(video) if "./" in video or "//" in video else video
    return f"{same} {images.first} {images.length}" if images and images.first else same


def _check_repeats(path: str | os.PathLike[str], records: Records, hashes: array[int]) -> None:
    """Raise for the first row whose video another one has.

    Args:
        path: the list.
        records: its rows.
        hashes: of what `_known_by` says of each.

    Raises:
        AnnotationError: there is one.
    """
    keys = np.frombuffer(hashes, np.int64)
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    line_of: dict[str, int] = {}
    for i in np.flatnonzero(np.isin(keys, repeated)).tolist() if len(repeated) else ():
        video, _, _, _, images = records[i]
        first, line = line_of.setdefault(_known_by(video, images), records.line(i)), records.line(i)
        if first != line:
            why = f"{video!r:.200} is in line {first} already; remove one of them"
            raise AnnotationError(f"{path}, line {line}: {why}")


def _perhaps_labels(files: dict[bool, int]) -> BadRowError:
    # Lists with one or several labels a file look so; a number of frames has either each or none.
    return BadRowError(
        f"the file of line {files[True]} has a number before its label, that of line "
        f"{files[False]} has none: are these several labels, set DATA.MULTI_LABEL True and "
        "MODEL.LOSS_FUNC bce; are they numbers of frames, leave them out"
    )


def _check_row(row: str) -> None:
    if len(row) > LONGEST:
        raise BadRowError(f"{len(row):,} characters, which is no path and label")
    if row.startswith("\ufeff"):
        raise BadRowError("a byte order mark, perhaps of a list that was appended: remove it")
    if found := CONTROL.search(row):
        why = "lines must end in \\n or \\r\\n" if found[0] == "\r" else "remove it"
        raise BadRowError(f"the control character {found[0]!r}: {why}")


def _inside(prefix: str, folder: str, video: str) -> str:
    if os.path.isabs(video):  # noqa: PTH117
        raise BadRowError(f"{video!r:.200} is absolute; make it relative to DATA.PATH_PREFIX")
    if ".." in video and Path(os.path.normpath(video)).parts[:1] in ((), ("..",)):
        raise BadRowError(f"{video!r:.200} leaves DATA.PATH_PREFIX {prefix!r}")
    if ":" in video:  # perhaps of another drive
        return os.path.join(prefix, video)  # noqa: PTH118
    return folder + video
