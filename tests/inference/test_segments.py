"""From probabilities to segments, on windows of a second."""

from __future__ import annotations

import numpy as np
import pytest

from timesformer.inference.segments import Rules, cells, segments_of, smoothed
from timesformer.utils.errors import UserError

NAMES = ("a", "b", "nothing")
EXACT = Rules(enter=0.6, leave=0.4, min_length=0, max_gap=0, smooth=0)


def found(rows, rules=EXACT, several=False):
    """Segments as "name start-end", of windows of a second each."""
    chances = np.array(rows, np.float64)
    starts = np.arange(len(rows), dtype=np.float64)
    segments = segments_of(chances, starts, starts + 1, float(len(rows)), NAMES, rules, several)
    return [f"{s.name} {s.start:g}-{s.end:g}" for s in segments]


def of_a(*values):
    return [(value, 0.0, 0.0) for value in values]


def test_a_window_speaks_for_what_is_nearest():
    starts = np.array([0.0, 1.0, 2.0])
    assert cells(starts, starts + 3, 6.0).tolist() == [0, 2, 3, 6]


def test_hysteresis():
    """Claimed from 0.6; and on both sides as far as it is above 0.4."""
    assert found(of_a(0.1, 0.45, 0.7, 0.45, 0.45, 0.3, 0.5, 0.1)) == ["a 1-5"]
    for several in (False, True):
        assert found(of_a(0.5, 0.59, 0.5), several=several) == []
        assert found(of_a(0.5, 0.61, 0.5), several=several) == ["a 0-3"]


def test_another_class_takes_over():
    rows = [(0.7, 0.2, 0), (0.45, 0.5, 0), (0.2, 0.7, 0)]
    assert found(rows) == ["a 0-2", "b 2-3"]
    assert found(rows, several=True) == ["a 0-2", "b 1-3"]


def test_short_gaps_close_and_short_segments_go():
    rules = Rules(enter=0.6, leave=0.4, min_length=1.5, max_gap=1, smooth=0)
    assert found(of_a(0.9, 0.1, 0.9, 0.1, 0.1, 0.9), rules) == ["a 0-3"]
    a, b = (0.9, 0.05, 0), (0.05, 0.9, 0)
    assert found([a, a, b, a, a], rules) == ["a 0-5"]  # a glimpse of b splits nothing
    assert found([a, a, b, b, a, a], rules) == ["a 0-2", "b 2-4", "a 4-6"]


def test_several_classes_at_a_time():
    rows = [(0.9, 0.1, 0), (0.9, 0.9, 0), (0.1, 0.9, 0)]
    assert found(rows, several=True) == ["a 0-2", "b 1-3"]


def test_the_background_is_nothing():
    rules = Rules(0.6, 0.4, 0, 0, 0, background=("nothing",))
    rows = [(0, 0, 0.9), (0.9, 0, 0.1)]
    assert found(rows, rules) == ["a 1-2"]
    assert found(rows, rules, several=True) == ["a 1-2"]
    assert found(rows) == ["nothing 0-1", "a 1-2"]
    with pytest.raises(UserError, match="--background: class 'noting' is not known; did you mean"):
        found(rows, Rules(0.6, 0.4, 0, 0, 0, background=("noting",)))


def test_smoothing_is_a_mean_of_neighbours():
    values, middles = np.random.default_rng(0).random((20, 2)), np.arange(20) * 0.5
    for seconds in (0.0, 1.0, 2.2, 99.0):
        expected = [values[np.abs(middles - m) <= seconds / 2].mean(0) for m in middles]
        np.testing.assert_allclose(smoothed(values, middles, seconds), expected)


def test_confidence_is_the_mean_probability():
    starts = np.arange(3.0)
    rows = np.array(of_a(0.5, 0.9, 0.1))
    (segment,) = segments_of(rows, starts, starts + 1, 3.0, NAMES, EXACT)
    assert segment.confidence == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enter": 0.0}, "--enter 0: a probability"),
        ({"enter": 0.2}, "--leave 0.3: must not be above --enter"),
        ({"smooth": -1.0}, "--smooth -1: must be seconds"),
    ],
)
def test_rules_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        Rules(**options)


def test_nothing_is_claimed_after_the_end():
    """Of a video shorter than a window, and where the last window's middle is behind the end."""
    starts = np.array([0.0])
    (one,) = segments_of(np.array([[0.9]]), starts, starts + 8, 1.0, ["a"], Rules().of_span(1.0))
    assert (one.start, one.end) == (0, 1)
    starts = np.array([0.0, 1.0, 2.0, 3.0])
    chances = np.array([[0.1], [0.9], [0.1], [0.9]])
    rules = Rules(min_length=0, max_gap=0, smooth=0)
    found = segments_of(chances, starts, starts + 1, 2.5, ["a"], rules)
    assert [(s.start, s.end) for s in found] == [(1, 2)]
