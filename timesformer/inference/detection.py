"""How good segments are: temporal mAP as ActivityNet and THUMOS define it, and frame accuracy.

A detection is right at a threshold if its temporal intersection over union (tIoU) with a true
segment of its class, in its video, reaches it, and no more confident detection has that segment
already; of several segments it takes the best one that is free. Average precision is the area
under the interpolated curve of precision and recall (that of PASCAL VOC since 2010), and mAP is
its mean over the classes that have true segments.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer.datasets.lists.text_file import read_text
from timesformer.inference.segments import Segment
from timesformer.utils.errors import AnnotationError
from timesformer.utils.text import not_known

THRESHOLDS = tuple(i / 10 for i in range(1, 8))
COLUMNS = ("video", "start", "end", "label")
NO_CLASS = -1


class Truth(NamedTuple):
    """A part of a video that is of a class.

    Attributes:
        video: name of the file.
        start: seconds.
        end: seconds.
        label: of the class.
    """

    video: str
    start: float
    end: float
    label: int


@dataclass(frozen=True)
class Detection:
    """How good the segments of videos are.

    Attributes:
        thresholds: of tIoU.
        mean_ap: mAP at each of them; NaN if there are no true segments.
        per_class: average precision of each class that has true segments, at each threshold.
        frame_accuracy: share of the frames for which exactly the true classes are claimed.
        frames: how many there were.
        true: number of true segments.
        found: number of segments.
    """

    thresholds: tuple[float, ...]
    mean_ap: tuple[float, ...]
    per_class: dict[str, tuple[float, ...]]
    frame_accuracy: float
    frames: int
    true: int
    found: int

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads; what isn't defined is None."""
        return {
            "mAP": {
                f"{t:g}": _or_none(v) for t, v in zip(self.thresholds, self.mean_ap, strict=True)
            },
            "mean_mAP": _or_none(float(np.mean(self.mean_ap))),
            "AP": {name: [*map(_or_none, values)] for name, values in self.per_class.items()},
            "frame_accuracy": _or_none(self.frame_accuracy),
            "frames": self.frames,
            "true_segments": self.true,
            "segments": self.found,
        }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def read_truth(path: Path, names: Sequence[str], video: str | None = None) -> list[Truth]:
    """Read true segments: a CSV with the columns video, start, end (seconds) and label.

    Args:
        path: the file; further columns play no part.
        names: of the classes; a label is one of these, or its number.
        video: of which the segments are wanted: its path, its name, or that without its suffix;
            None for all.

    Raises:
        AnnotationError: a line can't be; or there is none of the video.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    header = [column.strip().lower() for column in next(rows, [])]
    if missing := [column for column in COLUMNS if column not in header]:
        raise AnnotationError(
            f"{path}, line 1: there is no column {missing[0]}: the header is {','.join(COLUMNS)}"
        )
    places = [header.index(column) for column in COLUMNS]
    found = []
    for row in rows:
        if not any(map(str.strip, row)):
            continue
        where = f"{path}, line {rows.line_num}"
        if len(row) <= max(places):
            raise AnnotationError(f"{where}: {len(row)} columns, and the header has {len(header)}")
        found.append(_truth(where, [row[place].strip() for place in places], names))
    if video is None:
        return found
    of_video = [truth for truth in found if truth.video in _names_of(video)]
    if not of_video:
        others = ", ".join(sorted({truth.video for truth in found})[:3]) or "no line at all"
        raise AnnotationError(f"{path}: there is no line of {Path(video).name}, but {others}")
    return of_video


def _names_of(video: str) -> set[str]:
    return {video, Path(video).name, Path(video).stem}


def _truth(where: str, cells: Sequence[str], names: Sequence[str]) -> Truth:
    video, *times, label = cells
    try:
        start, end = map(float, times)
    except ValueError:
        raise AnnotationError(f"{where}: start and end are seconds, not {times}") from None
    if not 0 <= start < end < math.inf:
        raise AnnotationError(f"{where}: a segment from {start:g} to {end:g} s can't be")
    if label in names:
        return Truth(video, start, end, [*names].index(label))
    if label.isdecimal() and int(label) < len(names):
        return Truth(video, start, end, int(label))
    raise AnnotationError(f"{where}: {not_known('label', label, names)}")


def detection(
    found: Mapping[str, Iterable[Segment]],
    truth: Iterable[Truth],
    names: Sequence[str],
    clocks: Mapping[str, tuple[float, int]],
    thresholds: Sequence[float] = THRESHOLDS,
) -> Detection:
    """Measure segments.

    Args:
        found: of each video.
        truth: of these videos; their `video` is a key of `found`.
        names: of the classes.
        clocks: of each video its frames per second and its number of frames.
        thresholds: of tIoU.
    """
    true: dict[int, dict[str, list[tuple[float, float]]]] = {}
    of_video: dict[str, list[Truth]] = {video: [] for video in found}
    for one in truth:
        true.setdefault(one.label, {}).setdefault(one.video, []).append((one.start, one.end))
        of_video[one.video].append(one)
    claims: dict[int, list[tuple[float, str, float, float]]] = {}
    for video, segments in found.items():
        for s in segments:
            claims.setdefault(s.label, []).append((s.confidence, video, s.start, s.end))
    per_class = {
        names[label]: average_precision(claims.get(label, []), spots, thresholds)
        for label, spots in sorted(true.items())
    }
    right = frames = 0
    for video, (fps, count) in clocks.items():
        right += _right_frames(found[video], of_video[video], fps, count)
        frames += count
    values = np.array([*per_class.values()]).reshape(-1, len(thresholds))
    mean = values.mean(0) if len(values) else np.full(len(thresholds), np.nan)
    return Detection(
        thresholds=tuple(thresholds),
        mean_ap=tuple(mean.tolist()),
        per_class=per_class,
        frame_accuracy=right / frames if frames else math.nan,
        frames=frames,
        true=sum(len(spots) for videos in true.values() for spots in videos.values()),
        found=sum(map(len, claims.values())),
    )


def average_precision(
    claims: Sequence[tuple[float, str, float, float]],
    true: Mapping[str, Sequence[tuple[float, float]]],
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[float, ...]:
    """Return the average precision of one class at each threshold.

    Args:
        claims: (confidence, video, start, end) of each detection.
        true: (start, end) of the true segments of each video; there is one at least.
        thresholds: of tIoU.
    """
    ranked = sorted(claims, key=lambda claim: -claim[0])
    overlaps = [overlap(claim[2:], true.get(claim[1], ())) for claim in ranked]
    found = []
    for threshold in thresholds:
        taken = {video: [False] * len(spots) for video, spots in true.items()}
        hits = np.zeros(len(ranked))
        for i, (claim, values) in enumerate(zip(ranked, overlaps, strict=True)):
            for j in np.argsort(-values, kind="stable"):
                if values[j] < threshold:
                    break
                if not taken[claim[1]][j]:
                    taken[claim[1]][j], hits[i] = True, 1
                    break
        found.append(_area(hits, sum(map(len, true.values()))))
    return tuple(found)


def overlap(one: Sequence[float], others: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the tIoU of a segment (start, end) with each of others (m,)."""
    if not others:
        return np.zeros(0)
    starts, ends = np.array(others, np.float64).T
    both = np.clip(np.minimum(one[1], ends) - np.maximum(one[0], starts), 0, None)
    return both / ((one[1] - one[0]) + (ends - starts) - both)


def _area(hits: NDArray[np.float64], positives: int) -> float:
    """Return the area under the interpolated curve: hits (m,) of ranked detections."""
    right = hits.cumsum()
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    return float((best * hits).sum() / positives)


def _right_frames(found: Iterable[Segment], truth: Iterable[Truth], fps: float, count: int) -> int:
    """Count the frames in the middle of which exactly the true classes are claimed."""
    changes: list[tuple[int, int, int, int]] = []  # frame, side, label, +1 or -1
    sides: tuple[Iterable[Segment | Truth], ...] = (found, truth)
    for side, parts in enumerate(sides):
        for part in parts:
            for second, step in ((part.start, 1), (part.end, -1)):
                frame = min(max(math.ceil(second * fps - 0.5 - 1e-6), 0), count)
                changes.append((frame, side, part.label, step))
    active: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    right = before = 0
    for frame, side, label, step in [*sorted(changes), (count, 0, NO_CLASS, 0)]:
        if frame > before:
            same = {k for k, n in active[0].items() if n} == {k for k, n in active[1].items() if n}
            right += same * (frame - before)
            before = frame
        active[side][label] += step
    return right
