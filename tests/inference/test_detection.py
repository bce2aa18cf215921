"""Temporal mAP against an implementation of its own, and frames against frames."""

from __future__ import annotations

import math

import numpy as np
import pytest

from timesformer.inference.detection import (
    THRESHOLDS,
    Truth,
    average_precision,
    detection,
    overlap,
    read_truth,
)
from timesformer.inference.segments import Segment
from timesformer.utils.errors import AnnotationError

NAMES = ("a", "b", "c")


def slow_ap(claims, true, threshold):
    """In steps of recall: at each, the best precision of any cut-off that reaches it."""
    free = {(v, j): spot for v, spots in true.items() for j, spot in enumerate(spots)}
    total, right, points = len(free), 0, []
    for rank, (_, video, start, end) in enumerate(sorted(claims, key=lambda c: -c[0]), 1):
        best, place = threshold, None
        for (v, j), (a, b) in free.items():
            both = min(end, b) - max(start, a)
            share = both / (max(end, b) - min(start, a)) if both > 0 else 0.0
            if v == video and share >= best and (place is None or share > best):
                best, place = share, (v, j)
        if place is not None:
            del free[place]
            right += 1
        points.append((right / total, right / rank))
    steps = [k / total for k in range(1, total + 1)]
    return sum(max((p for r, p in points if r >= s - 1e-9), default=0.0) for s in steps) / total


def test_average_precision_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(40):
        true = {
            v: [(a, a + rng.uniform(1, 8)) for a in rng.uniform(0, 40, rng.integers(0, 5))]
            for v in "xy"
        }
        true["x"].append((50.0, 55.0))
        claims = [
            (rng.random(), str(rng.choice([*"xyz"])), a, a + rng.uniform(1, 8))
            for a in rng.uniform(0, 40, rng.integers(0, 25))
        ]
        found = average_precision(claims, true)
        expected = [slow_ap(claims, true, t) for t in THRESHOLDS]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_overlap():
    assert overlap((0, 2), [(1, 3), (0, 2), (2, 4), (0, 4)]).tolist() == [1 / 3, 1, 0, 0.5]
    assert overlap((0, 2), []).tolist() == []


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([], 0.0),
        ([(0.9, "x", 0, 10), (0.8, "x", 0, 10)], 0.5),  # a double finds nothing more
        ([(0.9, "x", 0, 10), (0.8, "x", 20, 30)], 1.0),
        ([(0.9, "x", 50, 60), (0.8, "x", 0, 10)], 0.25),
        ([(0.9, "y", 0, 10)], 0.0),  # another video
    ],
)
def test_of_two_true_segments(claims, expected):
    true = {"x": [(0, 10), (20, 30)]}
    assert average_precision(claims, true, [0.5]) == (expected,)


def measured(segments, truth, frames=100):
    found = [Segment(s, e, k, NAMES[k], c) for s, e, k, c in segments]
    true = [Truth("x", s, e, k) for s, e, k in truth]
    return detection({"x": found}, true, NAMES, {"x": (10.0, frames)})


def test_classes_without_true_segments_do_not_count():
    """Their detections neither help nor harm mAP; they do harm the frames."""
    result = measured([(0, 5, 0, 0.9), (5, 10, 2, 0.9)], [(0, 5, 0)])
    assert result.mean_ap == (1.0,) * len(THRESHOLDS)
    assert [*result.per_class] == ["a"]
    assert result.frame_accuracy == 0.5
    nothing = measured([], [])
    assert all(map(math.isnan, nothing.mean_ap))
    assert nothing.frame_accuracy == 1
    assert nothing.to_json()["mAP"]["0.5"] is None
    assert measured([], [(0, 5, 1)]).mean_ap == (0.0,) * len(THRESHOLDS)


def test_frames_are_counted_as_frames():
    rng = np.random.default_rng(0)
    for _ in range(20):
        parts = [
            [(a, a + rng.uniform(0.1, 4), int(rng.integers(3))) for a in rng.uniform(0, 9, n)]
            for n in rng.integers(0, 6, 2)
        ]
        result = measured([(*part, 0.5) for part in parts[0]], parts[1])
        right = 0
        for i in range(100):
            sets = [{k for s, e, k in side if s <= (i + 0.5) / 10 < e} for side in parts]
            right += sets[0] == sets[1]
        assert result.frame_accuracy == pytest.approx(right / 100)


def test_true_segments_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        '\ufefflabel,video,start,end,note\nb,v.mp4,0,1.5,x\n"2",v,2,3,\n\na,w.mp4,1,2,\n'
    )
    assert read_truth(path, NAMES, "some/v.mp4") == [Truth("v.mp4", 0, 1.5, 1), Truth("v", 2, 3, 2)]
    assert len(read_truth(path, NAMES)) == 3
    with pytest.raises(AnnotationError, match=r"no line of u.mp4, but v, v.mp4, w.mp4"):
        read_truth(path, NAMES, "u.mp4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video,start,label\n", r"line 1: there is no column end: the header is video,start,"),
        ("video,start,end,label\nv,0,1,a\nv,0,1,d\n", r"line 3: label 'd' is not known; choose"),
        ("video,start,end,label\nv,0,1,3\n", "line 2: label '3' is not known"),
        ("video,start,end,label\nv,2,1,a\n", "line 2: a segment from 2 to 1 s can't be"),
        ("video,start,end,label\nv,0:01,1,a\n", "line 2: start and end are seconds"),
        ("video,start,end,label\nv,0\n", "line 2: 2 columns, and the header has 4"),
        ("", "line 1: there is no column video"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(AnnotationError, match=said):
        read_truth(tmp_path / "t.csv", NAMES)
