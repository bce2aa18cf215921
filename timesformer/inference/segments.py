"""From the scores of windows to segments: what is there from when to when.

Letters: n windows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer.utils.errors import UserError
from timesformer.utils.text import not_known

Floats = NDArray[np.floating]
NOTHING = -1  # where no class is claimed
NEARLY = 1e-6  # seconds, for rounding


class Segment(NamedTuple):
    """A part of a video that is of a class.

    Attributes:
        start: seconds.
        end: seconds.
        label: of the class.
        name: what it is called.
        confidence: mean probability of the class in it, 0 to 1.
    """

    start: float
    end: float
    label: int
    name: str
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads: times to the millisecond."""
        rounded = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return self._asdict() | rounded | {"confidence": round(self.confidence, 6)}


@dataclass(frozen=True)
class Rules:
    """How probabilities become segments.

    Attributes:
        enter: probability from which on a class is claimed.
        leave: probability below which it no longer is.
        min_length: seconds; what is shorter isn't claimed.
        max_gap: seconds; two segments of a class with no more between them are one.
        smooth: seconds over which probabilities are averaged before; 0: not at all.
        background: names of classes that stand for nothing.

    `min_length`, `max_gap` and `smooth` are by default half of what a window spans: less than that
    the model hardly sees.

    Raises:
        UserError: a value can't be; the message names the option.
    """

    enter: float = 0.5
    leave: float = 0.3
    min_length: float | None = None
    max_gap: float | None = None
    smooth: float | None = None
    background: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, value in (("--enter", self.enter), ("--leave", self.leave)):
            if not 0 < value <= 1:
                raise UserError(f"{option} {value:g}: a probability is above 0 and at most 1")
        if self.leave > self.enter:
            raise UserError(
                f"--leave {self.leave:g}: must not be above --enter, which is {self.enter:g}"
            )
        for option, seconds in (
            ("--min-length", self.min_length),
            ("--max-gap", self.max_gap),
            ("--smooth", self.smooth),
        ):
            if seconds is not None and not 0 <= seconds < float("inf"):
                raise UserError(f"{option} {seconds:g}: must be seconds, 0 or more")

    def of_span(self, span: float) -> Rules:
        """Return the rules with what isn't said filled in for windows of so many seconds."""
        half = span / 2
        return replace(
            self,
            min_length=half if self.min_length is None else self.min_length,
            max_gap=half if self.max_gap is None else self.max_gap,
            smooth=half if self.smooth is None else self.smooth,
        )

    def background_labels(self, class_names: Sequence[str]) -> list[int]:
        """Return the labels of the classes that stand for nothing.

        Raises:
            UserError: there is no such class.
        """
        for name in self.background:
            if name not in class_names:
                raise UserError(f"--background: {not_known('class', name, class_names)}")
        return [class_names.index(name) for name in self.background]


def cells(starts: Floats, ends: Floats, duration: float) -> Floats:
    """Return the moments (n + 1) between which each window speaks for the video.

    A window speaks for what is nearest to its middle; the first and the last one also for what is
    before and after; none for what is after the video.
    """
    middles = (starts + ends) / 2
    between = (middles[1:] + middles[:-1]) / 2
    return np.minimum(np.concatenate([[0.0], between, [duration]]), duration)


def smoothed(probabilities: Floats, middles: Floats, seconds: float) -> Floats:
    """Average probabilities (n, K) over windows whose middles (n,) are half of it away at most."""
    reach = seconds / 2 + NEARLY
    first = np.searchsorted(middles, middles - reach)
    end = np.searchsorted(middles, middles + reach, side="right")
    if (end - first).max(initial=1) < 2:
        return probabilities
    sums = np.zeros((len(probabilities) + 1, probabilities.shape[1]))
    np.cumsum(probabilities, axis=0, out=sums[1:])
    return np.clip((sums[end] - sums[first]) / (end - first)[:, None], 0, 1)


def segments_of(
    probabilities: Floats,
    starts: Floats,
    ends: Floats,
    duration: float,
    names: Sequence[str],
    rules: Rules,
    several: bool = False,
) -> list[Segment]:
    """Make segments, in the order of their start.

    Args:
        probabilities: (n, K).
        starts: of the windows, in seconds (n,).
        ends: likewise.
        duration: of the video in seconds.
        names: of the classes (K,).
        rules: complete, see `Rules.of_span`.
        several: several classes may be claimed at a time, each by itself; else at most one.
    """
    if not len(probabilities):
        return []
    assert rules.min_length is not None
    assert rules.max_gap is not None
    assert rules.smooth is not None
    even = smoothed(probabilities, (starts + ends) / 2, rules.smooth)
    nothing = rules.background_labels(names)
    edges = cells(starts, ends, duration)
    if several:
        labels = [c for c in range(even.shape[1]) if c not in nothing]
        tracks = [np.where(_claimed(even[:, c], rules), c, NOTHING) for c in labels]
    else:
        tracks = [_single(even, nothing, rules)]
    found = []
    for track in tracks:
        runs = _joined(_runs(track, edges), rules.max_gap)
        # A window whose middle is after the end of the video speaks for nothing.
        runs = [run for run in runs if run.end > run.start]
        long = [run for run in runs if run.end - run.start >= rules.min_length - NEARLY]
        for run in _joined(long, rules.max_gap):
            a, b = np.searchsorted(edges, (run.start, run.end))
            found.append(
                Segment(
                    start=float(run.start),
                    end=float(run.end),
                    label=run.label,
                    name=names[run.label],
                    confidence=float(even[a:b, run.label].mean()),
                )
            )
    return sorted(found, key=lambda segment: (segment.start, segment.label))


class _Run(NamedTuple):
    """A class is claimed from one moment to another."""

    start: float
    end: float
    label: int


def _single(even: Floats, nothing: Sequence[int], rules: Rules) -> NDArray[np.intp]:
    """Claim at most one class for each window: labels (n,), or NOTHING.

    A class is claimed from where it is the likeliest and has reached `enter` until it falls below
    `leave` or another one takes over; and before, as far back as it is above `leave`.
    """
    tops, current = even.argmax(1), NOTHING
    claimed = np.full(len(even), NOTHING)
    for i, top in enumerate(tops):
        if even[i, top] >= rules.enter:
            current = int(top)
        elif current != NOTHING and even[i, current] < rules.leave:
            current = NOTHING
        claimed[i] = current
    for i in range(len(even) - 2, -1, -1):
        after = claimed[i + 1]
        if claimed[i] == after or after == NOTHING:
            continue
        if claimed[i] == NOTHING and even[i, after] >= rules.leave:
            claimed[i] = after
    claimed[np.isin(claimed, nothing)] = NOTHING
    return claimed


def _claimed(chance: Floats, rules: Rules) -> NDArray[np.bool_]:
    """Tell where a class is claimed (n,): from `leave` to `leave`, if `enter` is between."""
    claimed = chance >= rules.leave
    for a, b in _stretches(claimed):
        claimed[a:b] = chance[a:b].max() >= rules.enter
    return claimed


def _stretches(values: NDArray[Any]) -> list[tuple[int, int]]:
    """Return where equal values stand side by side: [start, end) of each stretch."""
    cuts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [*pairwise(cuts)]


def _runs(track: NDArray[np.intp], edges: Floats) -> list[_Run]:
    return [
        _Run(edges[a], edges[b], int(track[a])) for a, b in _stretches(track) if track[a] != NOTHING
    ]


def _joined(runs: Sequence[_Run], gap: float) -> list[_Run]:
    """Join neighbours of one class that are no further apart than a gap."""
    found: list[_Run] = []
    for run in runs:
        before = found[-1] if found else None
        if before and before.label == run.label and run.start - before.end <= gap + NEARLY:
            found[-1] = before._replace(end=run.end)
        else:
            found.append(run)
    return found
