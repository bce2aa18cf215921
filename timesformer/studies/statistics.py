"""Mean of a few seeds, and how far to believe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean and its interval.

    Attributes:
        mean: of the values.
        low, high: the interval of Student's t that holds the true mean with 95 %; None where one
            value says nothing of how they scatter. It may leave what can be, e.g. 0 to 100 %.
        number: of values.
    """

    mean: float
    low: float | None
    high: float | None
    number: int


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and 95 % interval of one or more values."""
    mean, count = fmean(values), len(values)
    if count == 1:
        return Estimate(mean, None, None, 1)
    half = t_quantile(count - 1) * stdev(values) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


@cache
def t_quantile(freedom: int) -> float:
    """Return t such that Student's t with these degrees of freedom is in ±t with 95 %."""
    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def _inside(t: float, freedom: int) -> float:
    """Probability of ±t, by the sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for i in range(2 + odd, freedom, 2):
        term *= cosine**2 * (i - 1) / i
        total += term
    summed = math.sin(angle) * total
    return 2 / math.pi * (angle + summed) if odd else summed
