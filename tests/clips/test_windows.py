"""Windows along a video: how many, where, and what code bases for action detection make of it."""

from __future__ import annotations

import pytest

from timesformer.clips.sampling import RateSampler
from timesformer.clips.windows import WindowSampler, seconds_of


@pytest.mark.parametrize(
    ("length", "fps", "stride", "count"),
    [
        (300, 30.0, 1.0, 8),  # 10 s and windows of 2.13 s: the last begins at 7
        (64, 30.0, 1.0, 1),  # exactly one
        (94, 30.0, 1.0, 2),  # exactly two
        (93, 30.0, 1.0, 1),
        (10, 30.0, 1.0, 1),  # shorter than a window
        (250, 25.0, 0.5, 16),
        (480, 50.0, 4.0, 2),
    ],
)
def test_windows_lie_in_the_video(length: int, fps: float, stride: float, count: int) -> None:
    sampler = WindowSampler(RateSampler(8, 8), stride)
    assert sampler.count(length, fps) == count
    last = sampler.place(length, fps, (count - 1, count))
    assert count == 1 or last.start + last.span <= length + 1e-6
    following = sampler.place(length, fps, (count, count + 1))
    assert following.start + following.span > length + 1e-6


def test_the_first_window_is_the_clip_at_the_start() -> None:
    clip = RateSampler(8, 8).place(500, 25.0, (0, 10))
    window = WindowSampler(RateSampler(8, 8), 1.0).place(500, 25.0, (0, 10))
    assert (window.start, window.offsets) == (clip.start, clip.offsets)
    third = WindowSampler(RateSampler(8, 8), 1.0).place(500, 25.0, (2, 10))
    assert seconds_of(third, 500, 25.0)[0] == 2.0
    assert third.numbers(500) == [50 + offset for offset in clip.offsets]


def test_detectors_find_the_middle_of_a_window_at_its_place() -> None:
    """ActionFormer's line, with the numbers that docs/inference.md has for its config."""
    sampler = WindowSampler(RateSampler(8, 8), 0.5)
    default_fps, feat_stride, num_frames = 30, 0.5 * 30, 64 / 30 * 30
    for i in range(5):
        place = (sampler.middle(i) * default_fps - 0.5 * num_frames) / feat_stride
        assert place == pytest.approx(i)


def test_a_stride_leads_on() -> None:
    with pytest.raises(ValueError, match="a stride must be positive"):
        WindowSampler(RateSampler(8, 8), 0.0)
