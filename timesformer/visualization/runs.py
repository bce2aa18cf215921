"""A picture of runs: what a clip costs against how often the model is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter, ScalarFormatter

INK, FAINT, GRID, DOT = "#1f2328", "#6e7781", "#d8dee4", "#2f6fbb"


class Point(NamedTuple):
    """A run.

    Attributes:
        name: its label.
        gmacs: 10⁹ multiply-adds of a clip.
        top1: accuracy in percent.
        params: number of parameters, the area of its dot.
    """

    name: str
    gmacs: float
    top1: float
    params: int


def draw_runs(points: Sequence[Point], title: str) -> Figure:
    """Draw accuracy over cost, a dot a run; the area of a dot grows with its parameters."""
    figure = Figure(figsize=(10, 6), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(gridspec_kw={"left": 0.08, "right": 0.97, "top": 0.87, "bottom": 0.11})
    largest = max(point.params for point in points)
    x, y, sizes = (
        [point.gmacs for point in points],
        [point.top1 for point in points],
        [40 + 500 * point.params / largest for point in points],
    )
    axes.axhline(50, color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    axes.scatter(x, y, s=sizes, color=DOT, alpha=0.75, edgecolors="white", zorder=3)
    _label(axes, points)
    axes.set_xscale("log")
    axes.set_xlim(min(x) / 1.5, max(x) * 2.2)
    axes.set_ylim(min(0.0, *y), 104)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_xlabel("10⁹ multiply-adds of a clip", color=FAINT)
    axes.set_ylabel("top-1", color=FAINT)
    axes.grid(color=GRID, zorder=0)
    axes.tick_params(colors=FAINT, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.text(0.08, 0.93, title, size=16, weight="bold", color=INK)
    return figure


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside the dots, moved apart where they would lie on each other."""
    taken: list[float] = []
    for point in sorted(points, key=lambda point: (-point.top1, point.gmacs)):
        height = point.top1
        while any(abs(height - other) < 3.4 for other in taken):
            height -= 3.4
        taken.append(height)
        axes.annotate(
            point.name,
            (point.gmacs, point.top1),
            (point.gmacs * 1.12, height),
            size=9,
            color=INK,
            va="center",
            arrowprops={"arrowstyle": "-", "color": GRID, "shrinkA": 0, "shrinkB": 4},
        )


def write_runs(path: Path, figure: Figure) -> None:
    """Save the picture as a PNG."""
    partial = path.with_name(f".{path.name}.tmp")
    figure.savefig(partial, format="png")
    partial.replace(path)
