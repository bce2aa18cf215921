"""Which frames make a clip: index arithmetic that never touches a video.

Everything is in source frames. A clip of `num_frames` frames, `sampling_rate` frames apart at
`target_fps`, spans `sampling_rate * num_frames * fps / target_fps` frames of a video that runs at
`fps`; the span may be fractional. `delta = max(length - span, 0)` is the room to place it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

PLACEMENTS = ("legacy", "center", "uniform")


@dataclass(frozen=True)
class ClipPosition:
    """Where a clip lies in a video of constant frame rate.

    Attributes:
        start: first frame, fractional, >= 0.
        span: number of frames from the first to the last sampled one, plus one; fractional.
        offsets: sampled frames counted from the clip's first one, ascending, T integers.
    """

    start: float
    span: float
    offsets: tuple[int, ...]


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
            last one at the end; a single view is centred).
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
            start = view_start(delta, view, self.placement)
        elif rng is not None:
            start = float(rng.uniform(0.0, delta))
        else:
            raise ValueError("a random clip (view=None) needs an rng")
        return ClipPosition(start, span, frame_offsets(self.num_frames, span))


def view_start(delta: float, view: tuple[int, int], placement: str) -> float:
    """First frame of view i of n, given the room `delta` there is; see `RateSampler.placement`."""
    i, n = view
    if not 0 <= i < n:
        raise ValueError(f"there is no view {i} of {n}")
    if placement == "center" or (placement == "uniform" and n == 1):
        return delta * (i + 0.5) / n
    if placement == "uniform":
        return delta * i / (n - 1)
    return delta * i / n


def frame_offsets(num_frames: int, span: float) -> tuple[int, ...]:
    """Return `num_frames` integers spread evenly over [0, span - 1], rounded down.

    32-bit steps, because a point that falls on a whole frame may round to the frame before it and
    the published models were trained with that rounding.
    """
    points = torch.linspace(0, max(span - 1, 0.0), num_frames, dtype=torch.float32)
    return tuple(points.long().tolist())
