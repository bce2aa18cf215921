"""Means and intervals against published tables of Student's t."""

from __future__ import annotations

import math

import pytest

from timesformer.studies.statistics import estimate, t_quantile

# Two-sided 95 %, from any textbook.
TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    9: 2.262,
    10: 2.228,
    30: 2.042,
    120: 1.980,
}


@pytest.mark.parametrize(("freedom", "t"), TABLE.items())
def test_quantile(freedom: int, t: float) -> None:
    assert t_quantile(freedom) == pytest.approx(t, abs=6e-4)


def test_interval() -> None:
    found = estimate([70.0, 72.0, 74.0])
    half = 4.303 * 2.0 / math.sqrt(3)
    assert found.mean == 72.0
    assert found.number == 3
    assert found.low == pytest.approx(72 - half, abs=1e-3)
    assert found.high == pytest.approx(72 + half, abs=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert estimate([71.5]) == (71.5, None, None, 1)
