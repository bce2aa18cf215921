"""Windows that slide along a video: fed every frame once, they keep what they need of it.

A window is a clip as a model takes it. However windows overlap, a frame is resized once, and it is
kept only as long as a window that shows it isn't complete.

Shape letters: T frames, h×w pixels after resizing.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timesformer.clips.sampling import ClipPosition, RateSampler, sampler_of
from timesformer.clips.windows import windows_within
from timesformer.datasets.video.requests import Cut, Moments, Request, request_for
from timesformer.datasets.video.whole import WholeVideo
from timesformer.utils.errors import UserError

NEARLY = 1e-6  # of a frame or a second, for rounding


@dataclass(frozen=True)
class Place:
    """Where a window lies.

    Attributes:
        start: seconds from the first frame.
        end: likewise.
        request: the window's frames in the making.
    """

    start: float
    end: float
    request: Request


@dataclass(frozen=True)
class Window:
    """A window that is complete.

    Attributes:
        start: seconds from the first frame.
        end: likewise.
        frames: what was made of its frames (T, 3, h, w).
    """

    start: float
    end: float
    frames: Tensor


class Windows:
    """Windows in the making.

    Attributes:
        complete: how many there were so far.
    """

    def __init__(self, places: Iterable[Place], cut: Cut) -> None:
        """Take the windows that are wanted.

        Args:
            places: ascending by their start; they may have no end.
            cut: makes of a frame (H, W, 3) what is kept of it.
        """
        self._places = iter(places)
        self._cut = cut
        self._open: deque[Place] = deque()
        self._last: Callable[[], np.ndarray] | None = None
        self.complete = 0

    def feed(self, number: int, pts: int, image: Callable[[], np.ndarray]) -> list[Window]:
        """Look at the next frame.

        Args:
            number: of the frame.
            pts: its timestamp.
            image: makes the frame (H, W, 3); called at most once, and only if a window wants it.

        Returns:
            The windows that are complete with it.
        """
        self._last, kept, i = image, None, 0
        while i < len(self._open) or self._next_one():
            request = self._open[i].request
            count = request.wants(number, pts) if request.missing else 0
            if count:
                kept = self._resized(image) if kept is None else kept
                request.images += [kept] * count
            i += 1
        found = []
        while self._open and not self._open[0].request.missing:
            found.append(self._done(self._open.popleft()))
        return found

    def finish(self) -> list[Window]:
        """Say that there are no more frames.

        Returns:
            Nothing, unless the video is shorter than a window: then one, whose last frame is
            repeated.
        """
        if self.complete or self._last is None or not self._open:
            return []
        request = self._open[0].request
        request.images += [self._resized(self._last)] * request.missing
        return [self._done(self._open.popleft())]

    def _next_one(self) -> bool:
        """Open the next window once the one before has begun; tell whether there is one."""
        if self._open and not self._open[-1].request.images:
            return False
        place = next(self._places, None)
        if place is not None:
            self._open.append(place)
        return place is not None

    def _resized(self, image: Callable[[], np.ndarray]) -> Tensor:
        return self._cut(torch.from_numpy(np.ascontiguousarray(image())))

    def _done(self, place: Place) -> Window:
        self.complete += 1
        return Window(place.start, place.end, torch.stack(place.request.images))


def span_of(sampling: dict[str, Any], window: float | None) -> float:
    """Return how many seconds a window of a model spans.

    Args:
        sampling: the model's.
        window: seconds, for a model that takes frames of equal parts; else None.

    Raises:
        UserError: the model's rate fixes it, and a window is given; or nothing says it.
    """
    sampler = sampler_of(**sampling)
    if not isinstance(sampler, RateSampler):
        if window is None:
            raise UserError(
                "the model takes frames of equal parts of a video, of whatever length: say "
                "--window SECONDS, about as long as the videos that it was trained on"
            )
        if not 0 < window < math.inf:
            raise UserError(f"--window {window:g}: must be seconds above 0")
        return window
    if window is not None:
        raise UserError(
            f"--window {window:g}: the model takes {sampler.num_frames} frames, one in "
            f"{sampler.sampling_rate} at {sampler.target_fps:g} frames/s, so its window spans "
            f"{sampler.seconds:.3g} s: leave --window out"
        )
    return sampler.seconds


def places_in(
    video: WholeVideo, sampling: dict[str, Any], stride: float, window: float | None = None
) -> Iterator[Place]:
    """Yield the windows of a file: those that fit into it, the first one in any case.

    Window k starts at k·stride; its frames are those of the clip that starts there.

    Args:
        video: the file.
        sampling: the model's.
        stride: seconds from one window to the next.
        window: see `span_of`.
    """
    span = span_of(sampling, window)
    # Where the file has no index, only decoding shows how many frames there are.
    known = video.info.index is not None
    count = windows_within(video.duration, span, stride)
    for k in range(count) if known else itertools.count():
        start = k * stride
        position = _position(video, sampling, start, span)
        yield Place(start, start + span, request_for(video.info, position))


def _position(
    video: WholeVideo, sampling: dict[str, Any], start: float, span: float
) -> ClipPosition:
    """Place the clip that starts at so many seconds and spans as many."""
    sampler, info = sampler_of(**sampling), video.info
    if isinstance(sampler, RateSampler):
        return sampler.at(start / video.frame_seconds, info.fps)
    first, end = (_frame_at(video, seconds) for seconds in (start, start + span))
    end = max(end, first + 1)
    return sampler.place(end - first, info.fps, (0, 1)).within(first, end)


def _frame_at(video: WholeVideo, seconds: float) -> int:
    """Return the number of the first frame that isn't shown before so many seconds."""
    if video.info.index is None:
        return math.ceil(seconds / video.frame_seconds - NEARLY)
    pts = video.info.first_pts + seconds / video.tick
    return int(np.searchsorted(video.info.index.pts, pts - NEARLY))


def moments_of(sampling: dict[str, Any], span: float, fps: float) -> list[float]:
    """Return when the frames of a window are shown, in seconds after its start (T).

    Half a frame early: the first frame from then on is the one that is meant, in spite of rounding.

    Args:
        sampling: the model's.
        span: seconds, see `span_of`.
        fps: frames per second of the stream.
    """
    sampler = sampler_of(**sampling)
    if isinstance(sampler, RateSampler):
        offsets = sampler.at(0.0, fps).offsets
    else:
        offsets = sampler.place(max(1, round(span * fps)), fps, (0, 1)).offsets
    return [(offset - 0.5) / fps for offset in offsets]


def places_from(
    moments: Sequence[float], span: float, tick: float, first: float, stride: float
) -> Iterator[Place]:
    """Yield the windows of a stream, which has no end.

    Args:
        moments: see `moments_of`.
        span: seconds of a window.
        tick: seconds of a tick.
        first: timestamp of the first frame, in ticks.
        stride: seconds from one window to the next.
    """
    for k in itertools.count():
        start = k * stride
        yield Place(
            start, start + span, Moments([first + (start + moment) / tick for moment in moments])
        )
