"""What figures of studies have in common: marks, panels, and how axes look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.axes import Axes

from timesformer.visualization.style import FAINT, GRID, INK

TOP1 = "top-1, %"
MISSING = "missing"
WIDTH = 7.0  # inches that a figure has at least, for the words above it


class Mark(NamedTuple):
    """A point of a figure.

    Attributes:
        label: of a row, or beside a point.
        mean: top-1 in percent; None if no run is complete.
        low, high: its interval; None with one seed.
        seeds: that it is of.
        missing: seeds whose runs aren't complete.
        paper: top-1 in the paper, in percent.
        x: place on the axis.
        series: line that it belongs to.
        gmacs: 10⁹ multiply-adds of a clip.
    """

    label: str
    mean: float | None
    low: float | None
    high: float | None
    seeds: int
    missing: int
    paper: float | None = None
    x: float | None = None
    series: str = ""
    gmacs: float | None = None


class Panel(NamedTuple):
    """The marks on some data.

    Attributes:
        title: the data.
        marks: in order.
        paper: the data of the paper's numbers.
        same: whether that is this data: then they are drawn into the same axes.
        lines: values that are known beforehand, by name.
    """

    title: str
    marks: list[Mark]
    paper: str
    same: bool
    lines: Mapping[str, float]

    @property
    def has_paper(self) -> bool:
        """Whether the paper's numbers have axes of their own."""
        return not self.same and any(mark.paper is not None for mark in self.marks)


def hollow(axes: Axes, x: float, y: float, colour: str) -> None:
    """Draw a number of the paper."""
    axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor=colour, markersize=8)


def dashed(axes: Axes, name: str, value: float, upright: bool) -> None:
    """Draw a value that is known beforehand as a line across, its name where the line ends."""
    draw = axes.axvline if upright else axes.axhline
    draw(value, color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    end, units = (value, 1.0), ("data", "axes fraction")
    axes.annotate(
        name, end if upright else end[::-1], (2 if upright else -2, 2),
        xycoords=units if upright else units[::-1], textcoords="offset points", size=8, color=FAINT,
        ha="left" if upright else "right", va="bottom" if upright else "baseline",
    )  # fmt: skip


def bare(axes: Axes, title: str, weight: str = "bold") -> None:
    """Give axes a title, and leave out what says nothing."""
    axes.set_title(title, loc="left", size=11, color=INK, weight=weight, pad=14)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
