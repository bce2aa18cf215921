"""Figures of studies whose variants have places on an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from timesformer.visualization.study_parts import (
    MISSING,
    TOP1,
    WIDTH,
    Mark,
    Panel,
    bare,
    dashed,
    hollow,
)
from timesformer.visualization.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    WRONG,
    blank_figure,
)

SERIES = (*COLOURS, "#8d5bb8", "#b8473f")


def draw_lines(panels: Sequence[Panel], x_label: str, x_log: bool) -> Figure:
    """Draw a line for each series, the paper's below, and what clips cost."""
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
    bare(axes, panel.title)
    for name, colour, marks in _by_series(panel.marks):
        axes.plot(*_points(marks, "mean"), "o-", color=colour, label=name or None)
        for mark in marks:
            assert mark.x is not None
            if mark.low is not None and mark.high is not None:
                axes.plot([mark.x] * 2, [mark.low, mark.high], "_-", color=colour, linewidth=1.4)
            if panel.same and mark.paper is not None:
                hollow(axes, mark.x, mark.paper, colour)
            if mark.mean is None:
                axes.annotate(
                    MISSING, (mark.x, 0.03), xycoords=("data", "axes fraction"), size=8,
                    color=WRONG, ha="center",
                )  # fmt: skip
    _labels(axes, panel.marks)
    for name, value in panel.lines.items():
        dashed(axes, name, value, upright=False)
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
    bare(axes, f"paper, {panel.paper}", weight="normal")
    for _, colour, marks in _by_series(panel.marks):
        places = _points(marks, "paper")
        axes.plot(*places, "o-", color=colour, linewidth=0.8, markerfacecolor="white")
    axes.margins(y=0.25)
    axes.set_ylabel(TOP1, size=10, color=FAINT)
    axes.grid(color=GRID)


def _costs(axes: Axes, marks: Sequence[Mark]) -> None:
    bare(axes, "cost", weight="normal")
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
