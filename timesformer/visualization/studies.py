"""The figure of a study: our accuracies with intervals, the paper's as hollow marks beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from timesformer.utils.text import counted
from timesformer.visualization.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    WRONG,
    all_scripts,
    blank_figure,
    fitted,
)

TOP1 = "top-1, %"
SERIES = (*COLOURS, "#8d5bb8", "#b8473f")
MISSING = "missing"
WIDTH = 7.0  # inches that a figure has at least, for the words above it
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a number on a line


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


@all_scripts()
def draw_study(
    title: str, panels: Sequence[Panel], x_label: str = "", x_log: bool = False, source: str = ""
) -> Figure:
    """Draw a study.

    Args:
        title: above it.
        panels: from left to right.
        x_label: of the axis; empty: each mark is a row with its label.
        x_log: the axis is logarithmic.
        source: of the paper's numbers.
    """
    figure = _draw_lines(panels, x_label, x_log) if x_label else _draw_rows(panels)
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.4 / height, title, size=16, weight="bold", color=INK)
    marks = [mark for panel in panels for mark in panel.marks]
    note = _seeds(marks)
    if source and any(mark.paper is not None for mark in marks):
        note += f"; hollow: {source}"
    figure.text(0.02, 1 - 0.68 / height, note, size=10, color=FAINT)
    if missing := sum(mark.missing for mark in marks):
        said = f"{counted(missing, 'run')} missing"
        figure.text(0.98, 1 - 0.4 / height, said, size=11, color=WRONG, ha="right")
    return figure


def _seeds(marks: Sequence[Mark]) -> str:
    counts = {mark.seeds for mark in marks if mark.seeds}
    if not counts:
        return "no run is complete"
    if counts == {1}:
        return "one seed each: no interval"
    low, high = min(counts), max(counts)
    return f"mean and 95 % interval of {low if low == high else f'{low} to {high}'} seeds"


# ---------------------------------------------------------------------------- rows


def _draw_rows(panels: Sequence[Panel]) -> Figure:
    rows = max(len(panel.marks) for panel in panels)
    widths = [width for p in panels for width in ([3.0, 1.7] if p.has_paper else [3.0])]
    wide = max(2.3 + 1.15 * sum(widths), WIDTH)
    figure = blank_figure(wide, 1.95 + 0.42 * rows)
    height = figure.get_figheight()
    columns = figure.subplots(
        1, len(widths), squeeze=False, sharey=True,
        gridspec_kw={
            "left": 2.0 / wide, "right": 1 - 0.25 / wide, "top": 1 - 1.2 / height,
            "bottom": 0.6 / height, "wspace": 0.12, "width_ratios": widths,
        },
    )[0]  # fmt: skip
    rest = iter(columns)
    for panel in panels:
        _rows(next(rest), panel)
        if panel.has_paper:
            _paper_rows(next(rest), panel)
    labels = [fitted(figure, mark.label, 1.8, size=10) for mark in panels[0].marks]
    columns[0].set_yticks(range(len(labels)), labels, color=INK, size=10)
    columns[0].invert_yaxis()
    columns[0].set_ylim(rows - 0.4, -0.6)
    return figure


def _rows(axes: Axes, panel: Panel) -> None:
    _bare(axes, panel.title)
    for row, mark in enumerate(panel.marks):
        if panel.same and mark.paper is not None:
            _hollow(axes, mark.paper, row, COLOURS[0])
        if mark.mean is None:
            axes.annotate(
                MISSING, (0.02, row), xycoords=("axes fraction", "data"), size=9, color=WRONG,
                va="center",
            )  # fmt: skip
            continue
        if mark.low is not None and mark.high is not None:
            ends = [[mark.mean - mark.low], [mark.high - mark.mean]]
            axes.errorbar(
                mark.mean, row, xerr=ends, fmt="none", color=COLOURS[0], capsize=3, elinewidth=1.6
            )
        axes.plot(mark.mean, row, "o", color=COLOURS[0], markersize=7)
        axes.annotate(
            f"{mark.mean:.1f}", (mark.mean, row), (0, 8), textcoords="offset points",
            ha="center", size=9, color=INK, bbox=ON_WHITE,
        )  # fmt: skip
    for name, value in panel.lines.items():
        axes.axvline(value, color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
        axes.annotate(
            name, (value, 1), (2, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", size=8, color=FAINT, va="bottom",
        )  # fmt: skip
    if panel.lines:
        axes.set_xlim(-2, 104)
    else:
        axes.margins(x=0.25)
    axes.set_xlabel(TOP1, size=10, color=INK)
    axes.grid(axis="x", color=GRID)


def _paper_rows(axes: Axes, panel: Panel) -> None:
    _bare(axes, f"paper, {panel.paper}", weight="normal")
    for row, mark in enumerate(panel.marks):
        if mark.paper is not None:
            _hollow(axes, mark.paper, row, FAINT)
            axes.annotate(
                f"{mark.paper:.1f}", (mark.paper, row), (0, 8), textcoords="offset points",
                ha="center", size=9, color=FAINT,
            )  # fmt: skip
    axes.margins(x=0.25)
    axes.set_xlabel(TOP1, size=10, color=FAINT)
    axes.grid(axis="x", color=GRID)


# ---------------------------------------------------------------------------- lines


def _draw_lines(panels: Sequence[Panel], x_label: str, x_log: bool) -> Figure:
    has_costs = any(mark.gmacs is not None for panel in panels for mark in panel.marks)
    has_paper = any(panel.has_paper for panel in panels)
    columns, lines = len(panels) + has_costs, 1 + has_paper
    ratios = [3.0, 1.7][:lines]
    wide, high = max(1.2 + 4.2 * columns, WIDTH), 2.0 + 1.05 * sum(ratios) + 0.6 * has_paper
    figure = blank_figure(wide, high)
    grid = figure.subplots(
        lines, columns, squeeze=False,
        gridspec_kw={
            "left": 0.75 / wide, "right": 1 - 0.3 / wide, "top": 1 - 1.2 / high,
            "bottom": 0.65 / high, "wspace": 0.24, "hspace": 0.4, "height_ratios": ratios,
        },
    )  # fmt: skip
    for column, panel in enumerate(panels):
        axes = grid[0, column]
        _lines(axes, panel)
        _x_axis(axes, panel.marks, x_label, x_log)
        if has_paper and panel.has_paper:
            _paper_lines(grid[1, column], panel)
            _x_axis(grid[1, column], panel.marks, x_label, x_log)
        elif has_paper:
            grid[1, column].set_axis_off()
    if has_costs:
        _costs(grid[0, -1], panels[0].marks)
        _x_axis(grid[0, -1], panels[0].marks, x_label, x_log)
        for axes in grid[1:, -1]:
            axes.set_axis_off()
    return figure


def _points(marks: Sequence[Mark], value: str) -> tuple[list[float], list[float]]:
    """Return places and values of the marks that have both, `value` being mean, paper or gmacs."""
    pairs = [(mark.x, getattr(mark, value)) for mark in marks]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return [x for x, _ in known], [y for _, y in known]


def _by_series(marks: Sequence[Mark]) -> list[tuple[str, str, list[Mark]]]:
    """Return each series with its colour and its marks that have a place, by x."""
    names = list(dict.fromkeys(mark.series for mark in marks))
    found = []
    for i, name in enumerate(names):
        own = [mark for mark in marks if mark.series == name and mark.x is not None]
        found.append((name, SERIES[i % len(SERIES)], sorted(own, key=lambda m: m.x or 0.0)))
    return found


def _lines(axes: Axes, panel: Panel) -> None:
    _bare(axes, panel.title)
    for name, colour, marks in _by_series(panel.marks):
        axes.plot(*_points(marks, "mean"), "o-", color=colour, label=name or None)
        for mark in marks:
            assert mark.x is not None
            if mark.low is not None and mark.high is not None:
                axes.plot([mark.x] * 2, [mark.low, mark.high], "_-", color=colour, linewidth=1.4)
            if panel.same and mark.paper is not None:
                _hollow(axes, mark.x, mark.paper, colour)
            if mark.mean is None:
                axes.annotate(
                    MISSING, (mark.x, 0.03), xycoords=("data", "axes fraction"), size=8,
                    color=WRONG, ha="center",
                )  # fmt: skip
    _labels(axes, panel.marks)
    for name, value in panel.lines.items():
        axes.axhline(value, color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
        axes.annotate(
            name, (1, value), (-2, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", size=8, color=FAINT, ha="right",
        )  # fmt: skip
    if panel.lines:
        axes.set_ylim(-2, 104)
    else:
        axes.margins(y=0.2)
        axes.set_ylim(top=min(axes.get_ylim()[1], 104))
    axes.set_ylabel(TOP1, size=10, color=INK)
    axes.grid(color=GRID)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)


def _labels(axes: Axes, marks: Sequence[Mark]) -> None:
    """Write names beside points, where there are no lines that have names."""
    if len({mark.series for mark in marks}) > 1:
        return
    for mark in marks:
        if mark.x is not None and mark.mean is not None:
            axes.annotate(
                mark.label, (mark.x, mark.mean), (0, -13), textcoords="offset points", size=8,
                color=INK, ha="center",
            )  # fmt: skip


def _paper_lines(axes: Axes, panel: Panel) -> None:
    _bare(axes, f"paper, {panel.paper}", weight="normal")
    for _, colour, marks in _by_series(panel.marks):
        places = _points(marks, "paper")
        axes.plot(*places, "o-", color=colour, linewidth=0.8, markerfacecolor="white")
    axes.margins(y=0.25)
    axes.set_ylabel(TOP1, size=10, color=FAINT)
    axes.grid(color=GRID)


def _costs(axes: Axes, marks: Sequence[Mark]) -> None:
    _bare(axes, "cost", weight="normal")
    for name, colour, own in _by_series(marks):
        axes.plot(*_points(own, "gmacs"), "s-", color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("10⁹ multiply-adds of a clip", size=10, color=INK)
    axes.grid(color=GRID)


def _x_axis(axes: Axes, marks: Sequence[Mark], label: str, log: bool) -> None:
    places = sorted({mark.x for mark in marks if mark.x is not None})
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    if _apart(places, log):
        axes.set_xticks(places, [f"{place:.3g}" for place in places])
    if places:
        edge = 0.08 * (places[-1] - places[0] or 1.0)
        limits = (places[0] / 1.15, places[-1] * 1.15) if log else None
        axes.set_xlim(*(limits or (places[0] - edge, places[-1] + edge)))
    axes.set_xlabel(label, size=10, color=INK)


def _apart(places: Sequence[float], log: bool) -> bool:
    """Tell whether there is room for a number at each place."""
    if log:
        places = [math.log(place) for place in places]
    gaps = [b - a for a, b in pairwise(places)]
    return not gaps or min(gaps) > (places[-1] - places[0]) / 15


# ---------------------------------------------------------------------------- both


def _hollow(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor=colour, markersize=8)


def _bare(axes: Axes, title: str, weight: str = "bold") -> None:
    axes.set_title(title, loc="left", size=11, color=INK, weight=weight, pad=14)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
