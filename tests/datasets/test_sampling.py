"""Frame selection against tables and exact rational arithmetic written down independently."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from timesformer.datasets.sampling import RateSampler, frame_offsets, view_start

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
