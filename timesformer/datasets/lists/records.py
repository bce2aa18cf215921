"""The videos of a data set, in memory that workers can share."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

TO_THE_END = -1


class Images(NamedTuple):
    """Which images of a folder are a video; all of them must be there. A file has none.

    Attributes:
        first: the place of the first one among the folder's, from 0; or the number in its name.
        length: how many follow each other.
        name: of the first one, where a list has it; `first` is the last number in it then.
    """

    first: int
    length: int
    name: str = ""


class Record(NamedTuple):
    """One video, or a part of one, and its class.

    Attributes:
        path: a video file, or a folder of extracted frames.
        label: its class; a tuple of classes where a video has several.
        start: first frame of the part.
        end: frame after the last one; None for the end of the video.
        images: those that count where the video is a folder; None for all.
    """

    path: str
    label: int | tuple[int, ...]
    start: int = 0
    end: int | None = None
    images: Images | None = None


class Records(Sequence[Record]):
    """A long list of records in a few buffers: about 25 bytes a record beside its path.

    A million Python objects would not only be ten times as large. Worker processes share their
    parent's memory until they write to it, and counting a reference is writing, so each of them
    would copy the whole list in the end.
    """

    def __init__(self, source: str = "", multi_label: bool = False) -> None:
        """Start an empty list.

        Args:
            source: the file that the records come from, for messages.
            multi_label: labels are tuples.
        """
        self.source = source
        self.multi_label = multi_label
        self._paths = bytearray()
        self._path_ends = array("q", [0])
        self._labels = array("i")
        self._label_ends = array("q", [0])  # used with several labels only
        self._lines = array("i")
        # start, end, start, end, …; or of images first and -1 - length; their name is behind the
        # path, after a NUL, which no path has
        self._spans = array("i")

    def append(
        self,
        path: str,
        label: int | Sequence[int],
        *,
        line: int = 0,
        start: int = 0,
        end: int | None = None,
        images: Images | None = None,
    ) -> None:
        """Add a record, a part of a video or images of a folder.

        `line` is its place in the source, from 1, or 0 for none.
        """
        if images is not None:
            path, start, end = f"{path}\0{images.name}", images.first, -1 - images.length
        self._paths += path.encode("utf-8", "surrogateescape")
        self._path_ends.append(len(self._paths))
        if self.multi_label:
            assert not isinstance(label, int)
            self._labels.extend(label)
            self._label_ends.append(len(self._labels))
        else:
            assert isinstance(label, int)
            self._labels.append(label)
        self._lines.append(line)
        self._spans.extend((start, TO_THE_END if end is None else end))

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._record(index)

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, range(len(self)))

    def take(self, indices: Iterable[int]) -> Records:
        """Return a list of some of the records, which keep their places in the source."""
        taken = Records(self.source, self.multi_label)
        for i in indices:
            path, label, start, end, images = self._record(i)
            taken.append(path, label, line=self._lines[i], start=start, end=end, images=images)
        return taken

    @property
    def classes(self) -> set[int]:
        """Labels that occur."""
        return set(self._labels)

    @property
    def nbytes(self) -> int:
        """Memory of the list in bytes."""
        arrays = (self._path_ends, self._labels, self._label_ends, self._lines, self._spans)
        return len(self._paths) + sum(len(a) * a.itemsize for a in arrays)

    def line(self, index: int) -> int:
        """Return the place of a record in its source, from 1; 0 if it has none."""
        return self._lines[index]

    def counts(self, num_classes: int) -> np.ndarray:
        """Return how often each label occurs (K,)."""
        return np.bincount(np.array(self._labels, np.int64), minlength=num_classes)

    def where(self, index: int) -> str:
        """Name the place of a record in its source: "train.csv, line 17"."""
        line = self.line(index)
        return f"{self.source}, line {line}" if line else self.source

    def _record(self, index: int) -> Record:
        path = self._paths[self._path_ends[index] : self._path_ends[index + 1]]
        start, end = self._spans[2 * index], self._spans[2 * index + 1]
        label: int | tuple[int, ...]
        if self.multi_label:
            label = tuple(self._labels[self._label_ends[index] : self._label_ends[index + 1]])
        else:
            label = self._labels[index]
        text = path.decode("utf-8", "surrogateescape")
        if end < TO_THE_END:
            text, _, name = text.rpartition("\0")
            return Record(text, label, images=Images(start, -1 - end, name))
        return Record(text, label, start, None if end < 0 else end)


def class_counts(records: Sequence[Record], num_classes: int) -> np.ndarray:
    """Return the videos of each class (K,); one with several labels counts for each of them."""
    if isinstance(records, Records):
        return records.counts(num_classes)
    counts = np.zeros(num_classes, np.int64)
    for record in records:
        counts[np.array(record.label, int)] += 1  # of one class or several
    return counts


def per_class(counts: np.ndarray) -> tuple[int, float, int]:
    """Return the least, the median and the greatest of `class_counts`; empty classes don't count.

    Raises:
        ValueError: there is no video.
    """
    there = counts[counts > 0]
    return int(there.min()), float(np.median(there)), int(there.max())


def named(records: Sequence[Record], index: int) -> str:
    """Name a video by its file and, where that is known, its place in a list."""
    where = getattr(records, "where", lambda _: "")(index)
    return f"{records[index].path} ({where})" if where else records[index].path
