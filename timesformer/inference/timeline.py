"""What is in a long video, and when.

    found = timeline(timesformer.load("runs/a"), "match.mp4", stride=0.5)
    found.segments

Shape letters: n windows, S crops, T frames, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from timesformer.clips.windows import windows_within
from timesformer.datasets.video.whole import Decoded, WholeVideo
from timesformer.inference.filling import filled
from timesformer.inference.given import SHORT
from timesformer.inference.predictor import BATCH, Predictor
from timesformer.inference.segments import Rules, Segment, segments_of, smoothed
from timesformer.inference.windows import Place, Window, Windows, places_in, span_of
from timesformer.models.base import Testing
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import is_folder
from timesformer.utils.logging import progress
from timesformer.utils.text import class_name

STRIDE = 1.0  # seconds
MOST_OFTEN = 0.5  # of a frame: windows closer than that show the same frames
THUMBNAILS, THUMBNAIL_SIDE = 8, 160  # pictures of a video; pixels of their longer side


@dataclass(frozen=True)
class Timeline:
    """What a model says of a long video, window by window and in segments.

    Attributes:
        path: the file.
        starts: of the windows, in seconds from the first frame (n,), ascending.
        ends: likewise.
        scores: of the windows, joined over crops as `testing` says (n, K).
        testing: one clip, its crops, how their scores were joined, and whether several classes
            may be claimed at a time.
        names: of the classes (K,).
        segments: in the order of their start.
        rules: how they were made.
        duration: seconds that could be decoded.
        fps: frames per second.
        frames: that were decoded; each of the file once, unless it is damaged.
        damage: what is wrong with the file although it could be read, or "".
        thumbnails: a few frames, small, with the second that each is shown.
    """

    path: str
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]
    testing: Testing
    names: tuple[str, ...]
    segments: list[Segment]
    rules: Rules
    duration: float
    fps: float
    frames: int
    damage: str = ""
    thumbnails: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Of the windows (n, K), ranked as the scores."""
        return self.testing.probabilities(torch.from_numpy(self.scores)).numpy()

    @property
    def smoothed(self) -> NDArray[np.floating]:
        """The probabilities that segments are made of (n, K)."""
        assert self.rules.smooth is not None
        middles = (self.starts + self.ends) / 2
        return smoothed(self.probabilities, middles, self.rules.smooth)

    def with_rules(self, rules: Rules) -> Timeline:
        """Return the same with segments made by other rules; nothing is computed again."""
        rules = rules.of_span(min(float(self.ends[0] - self.starts[0]), self.duration))
        found = segments_of(
            self.probabilities, self.starts, self.ends, self.duration, self.names, rules,
            self.testing.multi_label,
        )  # fmt: skip
        return replace(self, segments=found, rules=rules)

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {
            "path": self.path,
            "duration": round(self.duration, 3),
            "window": round(float(self.ends[0] - self.starts[0]), 6),
            "windows": len(self.starts),
            "multi_label": self.testing.multi_label,
            "damage": self.damage,
            "segments": [segment.to_json() for segment in self.segments],
        }


def timeline(
    predictor: Predictor,
    path: str | os.PathLike[str],
    *,
    stride: float = STRIDE,
    window: float | None = None,
    rules: Rules | None = None,
    num_crops: int = 1,
    multi_label: bool | None = None,
    batch_size: int = BATCH,
) -> Timeline:
    """Say what is in a long video, and when.

    Windows slide along it; each is a clip as the model takes it. Every frame is decoded once and
    memory doesn't grow with the video, but for the scores.

    Args:
        predictor: the model.
        path: a video file.
        stride: seconds from one window to the next.
        window: seconds that a window spans, for a model that takes frames of equal parts of a
            video. Others know it themselves.
        rules: how scores become segments.
        num_crops: of each window, 1 (the centre) or 3.
        multi_label: several classes may be claimed at a time; as the weights say when None.
        batch_size: clips in a forward pass.

    Raises:
        VideoError: nothing of it can be read.
        UserError: an argument can't be, or scores aren't finite.
    """
    if not 0 < stride < float("inf"):
        raise UserError(f"--stride {stride:g}: must be seconds above 0")
    sampling, testing = predictor.model.sampling, testing_of(predictor, num_crops, multi_label)
    span = span_of(sampling, window)
    rules = rules or Rules()
    rules.background_labels(predictor.class_names)  # a wrong name is told before the work
    video = _opened(path, stride)
    seen, places = _Seen(video.duration), places_in(video, sampling, stride, window)
    table = _Table(windows_within(video.duration, span, stride))
    _score(predictor, testing, video, seen, places, table, batch_size)
    starts, ends, joined = table.columns
    duration = seen.until + video.last_seconds
    if span > duration + video.frame_seconds:
        short = f"{duration:.3g} s, and a window spans {span:.3g} s: {SHORT}"
        video.damage = f"{video.damage}; {short}" if video.damage else short
    names = tuple(class_name(predictor.class_names, i) for i in range(joined.shape[1]))
    return Timeline(
        path=os.fspath(path),
        starts=starts,
        ends=ends,
        scores=joined,
        testing=testing,
        names=names,
        segments=[],
        rules=rules,
        duration=duration,
        fps=1 / video.frame_seconds,
        frames=video.decoded,
        damage=video.damage,
        thumbnails=seen.thumbnails,
    ).with_rules(rules)


def _opened(path: str | os.PathLike[str], stride: float) -> WholeVideo:
    """Open a video, unless the windows that are asked of it can't be."""
    if is_folder(path):
        raise VideoError(os.fspath(path), "a folder: a timeline is of one video file")
    video = WholeVideo(path)
    if stride < MOST_OFTEN * video.frame_seconds:  # a mistake; it would be at work for ever
        raise UserError(
            f"--stride {stride:g}: {video.path} has a frame every {video.frame_seconds:.3g} s: "
            "take that, or more"
        )
    return video


def _score(
    predictor: Predictor,
    testing: Testing,
    video: WholeVideo,
    seen: _Seen,
    places: Iterable[Place],
    table: _Table,
    batch_size: int,
) -> None:
    """Score the windows at these places, and add them to a table; see `timeline`."""
    crops = predictor.model.crops(testing.num_crops)
    windows = Windows(places, crops.frame)
    stream = (((w.start, w.end), crops.crops(w.frames)) for w in _windows(video, windows, seen))
    scored = filled(predictor.score, stream, batch_size)
    for place, found in progress(scored, "timeline", table.expected):
        table.add(place, testing.joined(found).numpy())


def testing_of(predictor: Predictor, num_crops: int, multi_label: bool | None) -> Testing:
    """Return how one window is looked at: see `timeline`."""
    told = predictor.testing._replace(num_clips=1, num_crops=num_crops)
    return told if multi_label is None else told._replace(multi_label=multi_label)


def _windows(video: WholeVideo, windows: Windows, seen: _Seen) -> Iterator[Window]:
    """Yield the windows of a file; what can't be decoded ends it, unless nothing could be before.

    Raises:
        VideoError: not one window is there.
    """
    try:
        for frame in video:
            seen(frame)
            yield from windows.feed(frame.number, frame.pts, frame.image)
        yield from windows.finish()
    except VideoError as error:
        if not windows.complete:
            raise
        video.damage = f"breaks off after {seen.until:.3g} s: {error.reason}"


class _Table:
    """The scores of windows, in a few large arrays.

    An array for each window would lie between the frames that come and go, and keep the memory
    that these free from being used again: it would grow with the video.

    Attributes:
        expected: about how many windows there will be.
    """

    def __init__(self, rows: int) -> None:
        """Make room for about so many windows."""
        self.expected, self._count = rows, 0
        self._places = np.empty((rows, 2))
        self._scores = np.empty((0, 0), np.float32)

    def add(self, place: tuple[float, float], scores: NDArray[np.float32]) -> None:
        """Add a window's start and end, and its scores (K,)."""
        if not self._count:
            self._scores = np.empty((self.expected, len(scores)), np.float32)
        elif self._count == len(self._places):  # the file has more than it said
            self._places = np.concatenate([self._places, np.empty_like(self._places)])
            self._scores = np.concatenate([self._scores, np.empty_like(self._scores)])
        self._places[self._count] = place
        self._scores[self._count] = scores
        self._count += 1

    @property
    def columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Starts and ends (n,), and scores (n, K)."""
        starts, ends = self._places[: self._count].T.copy()
        return starts, ends, self._scores[: self._count]


class _Seen:
    """Notes how far a video was decoded, and keeps small pictures of some of its frames.

    Attributes:
        until: seconds at which the last frame is shown.
        thumbnails: see `Timeline`.
    """

    def __init__(self, duration: float) -> None:
        """Choose the moments that are pictured: the middles of equal parts of so many seconds."""
        self.until = 0.0
        self.thumbnails: list[tuple[float, NDArray[np.uint8]]] = []
        self._wanted = [duration * (i + 0.5) / THUMBNAILS for i in range(THUMBNAILS)]

    def __call__(self, frame: Decoded) -> None:
        self.until = max(self.until, frame.seconds)
        if not self._wanted or frame.seconds < self._wanted[0]:
            return
        while self._wanted and self._wanted[0] <= frame.seconds:
            del self._wanted[0]
        picture = Image.fromarray(frame.image())
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        self.thumbnails.append((frame.seconds, np.asarray(picture)))
