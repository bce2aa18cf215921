"""Clips in the making: each is told of every decoded frame, and says how often it wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from timesformer.clips.sampling import ClipPosition
from timesformer.datasets.video.file import StreamInfo

NEARLY = 1e-3  # of a mean frame: so much before a frame's time is its time, but for rounding
Cut = Callable[[Tensor], Tensor]
"""Makes of a full frame (H, W, 3) what a clip needs of it, so that no clip of full frames is kept:
those of an 8K video are 100 MB each."""


class Request:
    """One clip in the making: told of every decoded frame, says how often it wants it."""

    size: int

    def __init__(self, size: int) -> None:
        self.size = size
        self.cut: Cut | None = None
        self.images: list[Tensor] = []

    @property
    def missing(self) -> int:
        return self.size - len(self.images)

    @property
    def next_number(self) -> int:
        """The next frame wanted; 0 if that isn't known beforehand."""
        return 0

    def wants(self, number: int, pts: int) -> int:
        raise NotImplementedError

    def take(self, image: np.ndarray, count: int) -> None:
        """Keep a frame (H, W, 3), or what the clip makes of it, `count` times."""
        if count:
            frame = torch.from_numpy(np.ascontiguousarray(image))
            self.images += [self.cut(frame) if self.cut else frame] * count


class Numbers(Request):
    """Frames whose numbers are known before decoding."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(len(numbers))
        self.numbers = numbers

    @property
    def next_number(self) -> int:
        return self.numbers[len(self.images)]

    def wants(self, number: int, pts: int) -> int:
        return sum(wanted <= number for wanted in self.numbers[len(self.images) :])


class Window(Request):
    """Frames at offsets from the first one that has reached a timestamp, up to another one.

    It's how the published code chooses them, and needs no trust in timestamps but this one.
    """

    def __init__(self, first_pts: int, last_pts: float, offsets: tuple[int, ...]) -> None:
        super().__init__(len(offsets))
        self.first_pts = first_pts
        self.last_pts = last_pts
        self.offsets = offsets
        self.first_number = -1

    def wants(self, number: int, pts: int) -> int:
        if self.first_number < 0:
            if pts < self.first_pts:
                return 0
            self.first_number = number
        if pts > self.last_pts:  # the window is over: the clip's last frame, repeated
            return self.missing
        return self.offsets.count(number - self.first_number)


class Moments(Request):
    """The first frames that have reached their moments: of streams, which have no end."""

    def __init__(self, moments: Sequence[float]) -> None:
        """Take moments in the stream's ticks, ascending."""
        super().__init__(len(moments))
        self.moments = moments

    def wants(self, number: int, pts: int) -> int:
        return sum(moment <= pts for moment in self.moments[len(self.images) :])


def frame_numbers(info: StreamInfo, position: ClipPosition) -> list[int]:
    """Turn a clip's place into numbers of frames, by a trusted index (`info.index`)."""
    assert info.index is not None
    pts = info.index.pts
    if not position.timed:
        numbers = list(position.offsets)
    elif info.index.constant_rate and not info.index.gaps:
        # The frames of Window, which stays on the first frame beyond the window.
        begin, finish = _window(info, position)
        start, beyond = np.searchsorted(pts, begin), np.searchsorted(pts, finish, side="right")
        numbers = [min(int(start) + offset, int(beyond)) for offset in position.offsets]
    else:  # the frame on show at each moment
        offsets = np.array(position.exact or position.offsets, np.float64)
        first, last = 0, len(pts) - 1
        offsets += NEARLY
        moments = info.first_pts + (position.start + offsets) * info.frame_ticks
        if position.part is not None:
            last = min(last, position.part[1] - 1)
            first = min(position.part[0], last)
            length = float(pts[last] - pts[first]) / info.frame_ticks + 1  # in mean frames
            before = position.share * max(length - position.span, 0.0)
            moments = pts[first] + (before + offsets) * info.frame_ticks
        shown = np.searchsorted(pts, moments, side="right") - 1
        numbers = np.clip(shown, first, last).tolist()
    return [min(number, len(pts) - 1) for number in numbers]


def _window(info: StreamInfo, position: ClipPosition) -> tuple[int, float]:
    """Timestamps between which a clip lies."""
    first = info.first_pts + int(position.start * info.frame_ticks)
    end = position.start + position.span - 1
    return first, info.first_pts + end * info.frame_ticks


def request_for(info: StreamInfo, position: ClipPosition) -> Request:
    if info.index is not None:
        return Numbers(frame_numbers(info, position))
    if not position.timed:
        return Numbers(position.offsets)
    return Window(*_window(info, position), position.offsets)
