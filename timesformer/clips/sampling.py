"""Which frames make a clip: index arithmetic that never touches a video.

Everything is in source frames. A clip of `num_frames` frames, `sampling_rate` frames apart at
`target_fps`, spans `sampling_rate * num_frames * fps / target_fps` frames of a video that runs at
`fps`; the span may be fractional. `delta = max(length - span, 0)` is the room to place it.

A test looks at a grid of views, clips in time × crops in space: `ViewGrid` numbers them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from timesformer.config.allowed import CHOICES

PLACEMENTS = CHOICES["DATA.TEST_CLIP_SAMPLING"]


@dataclass(frozen=True)
class ClipPosition:
    """Where a clip lies in a video.

    Attributes:
        start: first frame, fractional, >= 0.
        span: number of frames from the first to the last sampled one, plus one; fractional.
        offsets: sampled frames counted from the clip's first one, ascending, T integers.
        timed: the position stands for moments of time, which matters where the frame rate varies;
            else for frame numbers, counted from 0.
        exact: the offsets before they were rounded down, for where frames differ in length; () for
            the offsets as they are.
        share: of the room that there is for the clip, the part before it, 0 to 1.
        part: the frames [start, end) of the video that it is placed in; None for all.
    """

    start: float
    span: float
    offsets: tuple[int, ...]
    timed: bool = True
    exact: tuple[float, ...] = ()
    share: float = 0.0
    part: tuple[int, int] | None = None

    def numbers(self, length: int) -> list[int]:
        """Return the frames, from 0, of a video of so many whose rate is constant."""
        first = math.ceil(self.start)
        return [min(first + offset, length - 1) for offset in self.offsets]

    def within(self, start: int, end: int) -> ClipPosition:
        """Move a clip placed in a part of a video to that part, frames [start, end).

        Where frames differ in length, only their times tell where that is: see `frame_numbers`.
        """
        first = start + math.ceil(self.start)
        last = max(end - 1 - first, 0)
        offsets = tuple(min(offset, last) for offset in self.offsets)
        if not self.timed:
            return replace(self, offsets=tuple(start + offset for offset in offsets))
        return replace(self, start=start + self.start, offsets=offsets, part=(start, end))

    def thinned(self, every: int) -> ClipPosition:
        """Return the clip of the first of every so many frames, in the same place."""
        return replace(self, offsets=self.offsets[::every], exact=self.exact[::every])


class ClipSampler(Protocol):
    """Chooses the frames of a clip."""

    def place(
        self,
        length: int,
        fps: float,
        view: tuple[int, int] | None,
        rng: np.random.Generator | None = None,
    ) -> ClipPosition:
        """Place one clip in a video; see `RateSampler.place`."""


@dataclass(frozen=True)
class RateSampler:
    """Frames at a constant rate, the sampling of the Kinetics recipes (paper, Sec. 4).

    Attributes:
        num_frames: T, frames in a clip.
        sampling_rate: distance between two sampled frames, in frames at `target_fps`.
        target_fps: frame rate that `sampling_rate` counts in.
        placement: where the n deterministic views lie: `legacy` as published (view i starts at
            `delta * i / n`, so one view starts at frame 0 and the tail is never seen), `center`
            (the middle of n equal parts of delta), `uniform` (the first view at the start, the
            last one at the end; a single view is centred), `tiled` (uniform, but views never
            overlap: where n clips don't fit, only as many as do are taken, in turn).
    """

    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    placement: str = "legacy"

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.sampling_rate < 1 or not self.target_fps > 0:
            raise ValueError(f"num_frames, sampling_rate and target_fps must be positive: {self}")
        if self.placement not in PLACEMENTS:
            raise ValueError(f"clip sampling {self.placement!r} is none of {', '.join(PLACEMENTS)}")

    @property
    def seconds(self) -> float:
        """What a clip spans."""
        return self.num_frames * self.sampling_rate / self.target_fps

    def place(
        self,
        length: int,
        fps: float,
        view: tuple[int, int] | None,
        rng: np.random.Generator | None = None,
    ) -> ClipPosition:
        """Place one clip.

        Args:
            length: frames in the video.
            fps: frames per second of the video.
            view: (i, n) for the i-th of n deterministic views, None for a random clip.
            rng: source of the random start; needed where `view` is None.
        """
        span = self.sampling_rate * self.num_frames * fps / self.target_fps
        delta = max(length - span, 0.0)
        if view is not None:
            if self.placement == "tiled":
                view = tile(view, length, span)
            start, share = (view_start(room, view, self.placement) for room in (delta, 1.0))
        elif rng is not None:
            share = float(rng.random())
            start = delta * share
        else:
            raise ValueError("a random clip (view=None) needs an rng")
        return self.at(start, fps, share)

    def at(self, start: float, fps: float, share: float = 0.0) -> ClipPosition:
        """Return the clip that starts at a frame.

        Args:
            start: the frame, fractional.
            fps: frames per second of the video.
            share: of the room that there is for the clip, the part before it.
        """
        span = self.sampling_rate * self.num_frames * fps / self.target_fps
        exact = frame_points(self.num_frames, span)
        return ClipPosition(start, span, tuple(map(int, exact)), exact=exact, share=share)


def view_start(delta: float, view: tuple[int, int], placement: str) -> float:
    """First frame of view i of n, given the room `delta` there is; see `RateSampler.placement`."""
    i, n = view
    if not 0 <= i < n:
        raise ValueError(f"there is no view {i} of {n}")
    if placement == "center" or (n == 1 and placement != "legacy"):
        return delta * (i + 0.5) / n
    if placement in ("uniform", "tiled"):
        return delta * i / (n - 1)
    return delta * i / n


def tile(view: tuple[int, int], length: int, span: float) -> tuple[int, int]:
    """Wrap view i of n onto the m <= n views that a video has room for side by side."""
    i, n = view
    room = max(1, min(n, int(length / span + 1e-6)))
    return i % room, room


@dataclass(frozen=True)
class SegmentSampler:
    """One frame from each of T equal parts of the video, as for Something-Something.

    Part i reaches from frame `round(seg * i)` to `round(seg * (i + 1))`, seg = (n - 1) / T. The
    deterministic clip takes the middles, rounded down, so all temporal views of a video coincide.

    Attributes:
        num_frames: T, frames in a clip.
    """

    num_frames: int

    def place(
        self,
        length: int,
        fps: float,
        view: tuple[int, int] | None,
        rng: np.random.Generator | None = None,
    ) -> ClipPosition:
        """Place one clip; the arguments are those of `RateSampler.place`, `fps` plays no part."""
        if view is None and rng is None:
            raise ValueError("a random clip (view=None) needs an rng")
        segment = (length - 1) / self.num_frames
        frames = []
        for i in range(self.num_frames):
            low, high = round(segment * i), round(segment * (i + 1))
            if view is None and rng is not None:
                frames.append(int(rng.integers(low, high, endpoint=True)))
            else:
                frames.append((low + high) // 2)
        return ClipPosition(0.0, float(length), tuple(frames), timed=False)


def sampler_of(
    num_frames: int,
    sampling_rate: int | None,
    target_fps: float = 30.0,
    clip_sampling: str = "legacy",
) -> ClipSampler:
    """Return what chooses frames as a model's `sampling` says it.

    `sampling_rate` None is for frames of equal parts; the others mean nothing to these.
    """
    if sampling_rate is None:
        return SegmentSampler(num_frames)
    return RateSampler(num_frames, sampling_rate, target_fps, clip_sampling)


def frame_offsets(num_frames: int, span: float) -> tuple[int, ...]:
    """Return `num_frames` integers spread evenly over [0, span - 1], rounded down.

    32-bit steps, because a point that falls on a whole frame may round to the frame before it and
    the published models were trained with that rounding.
    """
    return tuple(map(int, frame_points(num_frames, span)))


def frame_points(num_frames: int, span: float) -> tuple[float, ...]:
    """Return the points that `frame_offsets` rounds down."""
    points = torch.linspace(0, max(span - 1, 0.0), num_frames, dtype=torch.float32)
    return tuple(points.tolist())


@dataclass(frozen=True)
class ViewGrid:
    """Numbers the views of a video: `view = temporal * num_crops + spatial`.

    Attributes:
        num_clips: clips along time.
        num_crops: crops of each clip.
    """

    num_clips: int = 1
    num_crops: int = 1

    @property
    def num_views(self) -> int:
        """Clips × crops."""
        return self.num_clips * self.num_crops

    @property
    def clips(self) -> list[tuple[int, int]]:
        """The temporal views (i, n) in the order of their number."""
        return [(i, self.num_clips) for i in range(self.num_clips)]

    def view(self, temporal: int, spatial: int) -> int:
        """Return the number of the view at this place of the grid."""
        return temporal * self.num_crops + spatial

    def split(self, view: int) -> tuple[int, int]:
        """Return the place (temporal, spatial) of a view number."""
        return divmod(view, self.num_crops)
