"""Frame selection against tables and exact rational arithmetic written down independently."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from timesformer.clips.sampling import (
    ClipPosition,
    RateSampler,
    SegmentSampler,
    frame_offsets,
    view_start,
)

DELTA = 84.0


@pytest.mark.parametrize(
    ("placement", "n", "starts"),
    [
        ("legacy", 1, [0]),
        ("legacy", 3, [0, 28, 56]),
        ("center", 1, [42]),
        ("center", 3, [14, 42, 70]),
        ("uniform", 1, [42]),
        ("uniform", 3, [0, 42, 84]),
        ("uniform", 4, [0, 28, 56, 84]),
    ],
)
def test_view_starts(placement: str, n: int, starts: list[float]) -> None:
    assert [view_start(DELTA, (i, n), placement) for i in range(n)] == starts


def test_the_recipes_frames() -> None:
    """8x32 and 16x16 at 30 frames/s, as the published code takes them."""
    assert frame_offsets(8, 256) == (0, 36, 72, 109, 145, 182, 218, 255)
    assert frame_offsets(16, 256) == tuple(range(0, 256, 17))
    assert frame_offsets(1, 32) == (0,)
    assert frame_offsets(4, 0.25) == (0, 0, 0, 0)  # slow video, short clip


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30), Fraction(30000, 1001), Fraction(50)])
@pytest.mark.parametrize(("frames", "rate"), [(8, 32), (16, 16), (96, 4), (8, 8), (2, 3), (8, 2)])
@pytest.mark.parametrize("length", [1, 31, 256, 300, 1000])
def test_against_exact_arithmetic(fps: Fraction, frames: int, rate: int, length: int) -> None:
    span = rate * frames * fps / 30
    delta = max(length - span, Fraction(0))
    offsets = [int(i * (span - 1) / (frames - 1)) for i in range(frames)]
    for i in range(5):
        position = RateSampler(frames, rate).place(length, float(fps), (i, 5))
        assert position.start == pytest.approx(float(delta * i / 5))
        assert position.span == pytest.approx(float(span))
        assert list(position.offsets) == offsets


def test_random_starts_fill_the_room_and_follow_the_rng() -> None:
    sampler = RateSampler(8, 32)
    starts = [
        sampler.place(300, 30.0, None, np.random.default_rng(seed)).start for seed in range(200)
    ]
    assert 0 <= min(starts) < 2
    assert 42 < max(starts) <= 44
    assert sampler.place(300, 30.0, None, np.random.default_rng(7)).start == starts[7]
    assert sampler.place(100, 30.0, None, np.random.default_rng(7)).start == 0


def test_target_fps_scales_the_span() -> None:
    assert RateSampler(8, 8, target_fps=10.0).place(300, 30.0, (0, 1)).span == 192


def test_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="none of legacy, center, uniform"):
        RateSampler(8, 32, placement="middle")
    with pytest.raises(ValueError, match="must be positive"):
        RateSampler(0, 32)
    with pytest.raises(ValueError, match="no view 3 of 3"):
        RateSampler(8, 32).place(300, 30.0, (3, 3))
    with pytest.raises(ValueError, match="needs an rng"):
        RateSampler(8, 32).place(300, 30.0, None)


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (100, [0, 0, 0, 0]),  # shorter than a clip
        (255, [63.5] * 4),  # room for one clip of 128 frames
        (256, [0, 128, 0, 128]),  # for two
        (400, [0, 136, 272, 0]),
        (512, [0, 128, 256, 384]),
        (5120, [0, 1664, 3328, 4992]),
    ],
)
def test_tiled_clips_never_overlap(length: int, starts: list[float]) -> None:
    sampler = RateSampler(4, 32, placement="tiled")
    assert [sampler.place(length, 30.0, (i, 4)).start for i in range(4)] == starts


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 46, 117])
def test_segments_take_a_frame_from_each_part(length: int) -> None:
    sampler, edges = SegmentSampler(8), [round((length - 1) / 8 * i) for i in range(9)]
    middles = tuple((a + b) // 2 for a, b in pairwise(edges))
    for i in range(2):
        position = sampler.place(length, 12.0, (i, 2))
        assert (position.offsets, position.start, position.timed) == (middles, 0, False)
    seen = [set() for _ in range(8)]
    for seed in range(200):
        clip = sampler.place(length, 12.0, None, np.random.default_rng(seed)).offsets
        for part, frame in zip(seen, clip, strict=True):
            part.add(frame)
    assert [(min(part), max(part)) for part in seen] == list(pairwise(edges))
    assert sampler.place(length, 1.0, None, np.random.default_rng(199)).offsets == clip


@pytest.mark.parametrize("sampler", [RateSampler(8, 32), SegmentSampler(8)])
def test_a_random_clip_needs_a_generator(sampler: RateSampler | SegmentSampler) -> None:
    with pytest.raises(ValueError, match="needs an rng"):
        sampler.place(100, 30.0, None)


def test_within_a_part_of_a_video() -> None:
    timed = ClipPosition(2.5, 10.0, (0, 4, 9)).within(100, 120)
    assert (timed.start, timed.offsets) == (102.5, (0, 4, 9))
    # The part ends before the clip does: its last frame is repeated, none beyond is taken.
    assert ClipPosition(2.5, 10.0, (0, 4, 9)).within(100, 108).offsets == (0, 4, 4)
    numbered = ClipPosition(0.0, 10.0, (0, 4, 9), timed=False).within(100, 110)
    assert (numbered.start, numbered.offsets) == (0.0, (100, 104, 109))
