"""Clips one after the other along a whole video, and where a clip's frames lie in seconds.

Index arithmetic, as in `sampling.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from timesformer.clips.sampling import ClipPosition, RateSampler

NEARLY = 1e-6  # of a stride: what rounding may take from the last window


def windows_within(duration: float, window: float, stride: float) -> int:
    """Return how many windows of so many seconds lie in a video as a whole; 1 at least.

    Args:
        duration: seconds of the video.
        window: seconds that a window spans.
        stride: seconds from the start of a window to that of the next.
    """
    return max(1, 1 + math.floor((duration - window) / stride + NEARLY))


@dataclass(frozen=True)
class WindowSampler:
    """Windows of constant length in seconds, each a stride after the one before.

    Window i begins at `i * stride` seconds. Those are taken that lie in the video as a whole, and
    the first one always. It is a `ClipSampler` whose view (i, n) is window i of n.

    Attributes:
        sampler: chooses the frames of a window.
        stride: seconds from the start of a window to that of the next.
    """

    sampler: RateSampler
    stride: float

    def __post_init__(self) -> None:
        if not self.stride > 0:
            raise ValueError(f"a stride must be positive: {self.stride}")

    @property
    def window(self) -> float:
        """Seconds that a window spans."""
        return self.sampler.seconds

    def count(self, length: int, fps: float) -> int:
        """Return how many windows a video has."""
        return windows_within(length / fps, self.window, self.stride)

    def place(
        self,
        length: int,
        fps: float,
        view: tuple[int, int] | None,
        rng: np.random.Generator | None = None,
    ) -> ClipPosition:
        """Place one window; the arguments are those of `RateSampler.place`.

        Raises:
            ValueError: a random window is asked for.
        """
        if view is None:
            raise ValueError("windows have their places: say which")
        return self.sampler.at(view[0] * self.stride * fps, fps)

    def middle(self, i: int) -> float:
        """Return the second in the middle of window i."""
        return i * self.stride + self.window / 2


def seconds_of(position: ClipPosition, length: int, fps: float) -> list[float]:
    """Return when a clip's T frames are shown, in seconds from the first frame of the video.

    They are frame numbers over the mean rate: exact where the rate is constant; where it varies
    within a frame for clips at a rate, and no more than an estimate for frames of equal parts.
    """
    return [number / fps for number in position.numbers(length)]
