"""Lists of labelled videos: text files with one video a row, in the forms people have them.

A row is `path label`. The label is what follows the last separator, so a path may contain it.

    videos/abc.mp4 17             one or several spaces; tabs, commas and `::` do as well, whatever
    my videos/abc.mp4,17          DATA.PATH_LABEL_SEPARATOR says: the separators are tried in the
    "a, b.mp4",17                 order configured, `::`, tab, comma, space, and the first that
    videos/abc.mp4::17            leaves a label wins. A field with separators may be quoted.
    videos/abc.mp4 300 17         the number of frames is ignored: an integer before the label,
    frames/abc 300 17             after a file extension or in a row of just three fields
    frames/abc 12 300 17          offset, number of frames, label: extracted frames of mmaction2
    videos/abc.mp4 air drumming   a class name (DATA.CLASS_NAMES), also written air_drumming
    air_drumming/abc.mp4          no label: the folder is the class, as in UCF101's testlist
    videos/abc.mp4 3,17           several labels (DATA.MULTI_LABEL), numbers or names; after a file
    videos/abc.mp4 3 17           extension spaces do as well. Without MULTI_LABEL both are refused

Labels are numbers from 0; a number is never taken for a class name. Blank rows are ignored, and so
is a first row such as `path,label`. Text is UTF-8, with or without byte order mark or CR.

The provider's files of Kinetics, with columns label, youtube_id, time_start and time_end, are read
too. The videos are `<youtube_id>_%06d_%06d.mp4`, times in seconds, in folders of their classes, if
there are such, or all in one; either may lie in a folder of the list's name, or of the split that
its rows name.

Paths are checked as text alone: a million rows load in seconds, and a missing video shows later.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from timesformer.datasets.lists.records import Records
from timesformer.datasets.lists.text_file import read_text
from timesformer.utils.errors import AnnotationError

Label = int | tuple[int, ...]
Span = tuple[int, int | None]  # frames [start, end); None: to the end
WHOLE: Span = (0, None)
Row = tuple[str, Label, Span]
SEPARATORS = ("::", "\t", ",", " ")
BETWEEN = " \t,:"
UNIT = "\x1f"  # stands for a separator where there may be only one character
MAX_INSIDE_LABEL = 50  # separators; bounds the time that a hostile row can take
LABEL_COLUMNS = {"label", "labels", "class", "label_id", "class_id", "class_name", "target", "tag"}
SPLIT_FOLDERS = {"validate": "val", "validation": "val"}  # the provider's word -> people's folder
PROVIDER_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


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
    line_of: dict[str, int] = {}
    parse: RowParser | ProviderParser | None = None
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        row = line.strip()
        if not row:
            continue
        try:
            if parse is None:
                parse = RowParser(separator, read_label)
                if "youtube_id" in _csv_fields(row.lower(), ","):
                    parse = ProviderParser(row, Path(prefix), Path(path).stem, read_label)
                    continue
                if parse.is_header(row):
                    continue
            video, label, span = parse(row)
            video = _inside(prefix, video) if prefix else video
            same = os.path.normpath(video) if "./" in video or "//" in video else video
            first = line_of.setdefault(same, number)
            if first != number:
                raise BadRowError(f"{video!r:.200} is in line {first} already; remove one of them")
        except BadRowError as error:
            raise AnnotationError(f"{path}, line {number}: {error}") from None
        records.append(video, label, line=number, start=span[0], end=span[1])
    if not records:
        raise AnnotationError(f"{path}: the list has no videos")
    return records


class BadRowError(ValueError):
    """What is wrong with a row; `read_list` adds file and line."""


class LabelReader:
    """Reads labels: numbers, class names, or several of them with commas."""

    def __init__(self, num_classes: int, class_names: Sequence[str], multi_label: bool) -> None:
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.index = {name.replace("_", " "): i for i, name in enumerate(class_names)}
        self.index |= {name: i for i, name in enumerate(class_names)}

    def __call__(self, text: str) -> Label | None:
        """Return the label(s) that `text` is, None if it isn't; BadRowError if out of range."""
        if not self.multi_label:
            return self._one(text)
        whole = self.named(text.strip()) is not None  # a name with a comma
        found = [self._one(part) for part in ([text] if whole else text.split(","))]
        known = {label for label in found if label is not None}
        return None if None in found else tuple(sorted(known))

    def named(self, name: str) -> int | None:
        """Return the label of a class name, None if there is no such class."""
        label = self.index.get(name)
        return self.index.get(name.replace("_", " ")) if label is None else label

    def unknown(self, text: str) -> BadRowError:
        """Return the error for a text that is no label."""
        wrong = "neither an integer nor a class name" if self.index else "not an integer"
        advice = "" if self.index else "; if it is a class name, set DATA.CLASS_NAMES"
        return BadRowError(f"the label {text!r:.200} is {wrong}{advice}")

    def _one(self, text: str) -> int | None:
        text = text.strip()
        if not text.removeprefix("-").isdecimal():
            return self.named(text)
        # So many digits are no label; int() refuses some thousands in words of its own.
        label = int(text) if len(text) <= 18 else text
        if isinstance(label, int) and 0 <= label < self.num_classes:
            return label
        why = f"not in 0..{self.num_classes - 1}; MODEL.NUM_CLASSES is {self.num_classes}"
        if label == self.num_classes:
            why += "; if labels count from 1, as in UCF101's trainlist, subtract 1"
        raise BadRowError(f"label {label!s:.60} is {why}")


class RowParser:
    """Parser of rows `path label`. Raises BadRowError if there is no label, or an unknown one."""

    def __init__(self, separator: str, read_label: LabelReader) -> None:
        self.read_label = read_label
        self.separators: tuple[str, ...] = tuple(dict.fromkeys((separator or " ", *SEPARATORS)))
        if read_label.multi_label:  # a comma is first of all what stands between labels
            self.separators = (*(s for s in self.separators if s != ","), ",")

    def __call__(self, row: str) -> Row:
        for separator in self.separators:
            fields = _fields(row, separator)
            # Longest label first: the end of a label of several words may be another label.
            for i in range(1, len(fields)):
                label = self.read_label(separator.join(fields[i:]))
                video = separator.join(fields[:i])
                if label is not None and video.rstrip(BETWEEN):
                    self._keep(separator)
                    return self._without_numbers(video, separator, label)
        video, label = self._labelled_by_folder(row.strip('"'))
        return video, label, WHOLE

    def _keep(self, separator: str) -> None:
        """Try first what stood in the row before: a list has one separator."""
        if separator != self.separators[0]:
            self.separators = tuple(dict.fromkeys((separator, *self.separators)))

    def is_header(self, row: str) -> bool:
        """Tell whether a first row names columns, a path and last a label."""
        for separator in (*self.separators, '"'):
            row = row.replace(separator, " ")
        *others, last = row.lower().split() or [""]
        if last not in LABEL_COLUMNS or self.read_label.named(last) is not None:
            return False
        has_path = any(name.startswith(("path", "video", "file")) for name in others)
        return has_path and all(map(str.isidentifier, others))

    def _without_numbers(self, video: str, separator: str, label: Label) -> Row:
        """Part a path from the numbers behind it: further labels, a number of frames, an offset."""
        video, rest = video.rstrip(BETWEEN), video
        between = rf"(?:[\s,]|{re.escape(separator)})+"
        match = re.fullmatch(rf"(.*?)((?:{between}\d{{1,9}})+)", video, re.DOTALL)
        if not match or not match[1]:
            return video, label, WHOLE
        path, is_file = match[1], _has_extension(match[1])
        numbers = [int(n) for n in re.findall(r"\d+", match[2])]
        gaps = [*re.split(r"\d+", match[2])[:-1], rest[len(video) :] + separator]
        separated = all(separator in gap and "," not in gap.replace(separator, "") for gap in gaps)
        if self.read_label.multi_label:
            return self._more_labels(path, is_file, numbers, label)
        if is_file and not (separated and len(numbers) == 1):
            several = ", ".join(map(str, (*numbers, label)))
            raise BadRowError(
                f"several labels ({several:.60}): set DATA.MULTI_LABEL True and MODEL.LOSS_FUNC "
                "bce, or leave one"
            )
        if is_file or (separated and separator not in path and len(numbers) == 1):
            return path, label, WHOLE  # what is left out is the number of frames
        if separated and separator not in path and len(numbers) == 2:
            return path, label, (numbers[0], numbers[0] + numbers[1])
        return video, label, WHOLE  # a path that ends in numbers

    def _more_labels(self, path: str, is_file: bool, numbers: list[int], label: Label) -> Row:
        assert isinstance(label, tuple)
        if not is_file:
            raise BadRowError(f"{numbers[-1]} before the labels: join labels with commas")
        found = {*label}
        for number in numbers:
            found.update(self.read_label(str(number)) or ())  # type: ignore[arg-type]
        return path, tuple(sorted(found)), WHOLE

    def _labelled_by_folder(self, video: str) -> tuple[str, Label]:
        folder, _, file = video.rpartition("/")
        label = self.read_label.named(folder.rpartition("/")[2])
        texts = [file.rpartition(s)[2].strip() for s in self.separators if s in file]
        if texts and not _has_extension(file):
            raise self.read_label.unknown(texts[0])
        if label is None:
            accepted = ", ".join(repr(separator) for separator in self.separators)
            raise BadRowError(
                f"no label in {video!r:.200}; a row is a path, one of {accepted}, and a label "
                "(DATA.PATH_LABEL_SEPARATOR may be another), or a path in a folder named after its "
                "class (DATA.CLASS_NAMES)"
            )
        return video, (label,) if self.read_label.multi_label else label


class ProviderParser:
    """Parser of the provider's rows of Kinetics. Raises BadRowError if there is something missing.

    The first row decides, by the folders that are there, where the videos of all rows lie.
    """

    def __init__(self, header: str, root: Path, split: str, read_label: LabelReader) -> None:
        self.columns = _csv_fields(header.lower(), ",")
        self.root, self.split, self.read_label = root, split, read_label
        self.folder: str | None = None
        for column in PROVIDER_COLUMNS:
            if column not in self.columns:
                raise BadRowError(f"there is no column {column!r}")

    def __call__(self, row: str) -> Row:
        """Return path and label of a whole video."""
        fields = dict(zip(self.columns, _csv_fields(row, ","), strict=False))
        try:
            name, video, *times = (fields[column] for column in PROVIDER_COLUMNS)
            start, end = (int(float(time)) for time in times)
        except (KeyError, ValueError, OverflowError):
            raise BadRowError(f"no {', '.join(PROVIDER_COLUMNS)} in {row!r:.200}") from None
        label = self.read_label(name)
        if label is None:
            raise self.read_label.unknown(name)
        words = {"name": name, "name_": name.replace(" ", "_")}
        if self.folder is None:
            self.folder = self._find_folder(words, fields.get("split", ""))
        return f"{self.folder.format(**words)}{video}_{start:06d}_{end:06d}.mp4", label, WHOLE

    def _find_folder(self, words: dict[str, str], split: str) -> str:
        """Pattern of the folders that are there; a copy of the val list may be the test list."""
        classes = ("{name}/", "{name_}/", "")
        splits = dict.fromkeys((self.split, split, SPLIT_FOLDERS.get(split, split)))
        patterns = [f"{folder}/{name}" for folder in splits if folder for name in classes]
        for pattern in (*patterns, *classes):
            if pattern and os.path.isdir(self.root / pattern.format(**words)):  # noqa: PTH112
                return pattern
        return ""


def _fields(row: str, separator: str) -> list[str]:
    if '"' not in row:
        return row.rsplit(separator, MAX_INSIDE_LABEL)
    fields = _csv_fields(row.replace(separator, UNIT), UNIT)
    return [field.replace(UNIT, separator) for field in fields]


def _csv_fields(row: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([row], delimiter=separator, skipinitialspace=True), [])
    except csv.Error as error:
        raise BadRowError(f"not a row of fields: {error}") from None


def _has_extension(path: str) -> bool:
    stem, _, extension = path.rpartition(".")
    return bool(stem) and len(extension) <= 5 and extension.isalnum() and not extension.isdecimal()


def _inside(prefix: str, video: str) -> str:
    if os.path.isabs(video):  # noqa: PTH117
        raise BadRowError(f"{video!r:.200} is absolute; make it relative to DATA.PATH_PREFIX")
    if ".." in video and Path(os.path.normpath(video)).parts[:1] in ((), ("..",)):
        raise BadRowError(f"{video!r:.200} leaves DATA.PATH_PREFIX {prefix!r}")
    return os.path.join(prefix, video)  # noqa: PTH118
