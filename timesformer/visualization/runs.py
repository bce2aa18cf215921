"""A picture of runs: how often each model is right, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timesformer.utils.errors import in_one_line
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


class Point(NamedTuple):
    """A run.

    Attributes:
        name: its label.
        gmacs: 10⁹ multiply-adds of a clip.
        top1: accuracy in percent.
        params: number of parameters.
    """

    name: str
    gmacs: float
    top1: float
    params: int


@all_scripts()
def draw_runs(points: Sequence[Point], title: str, warning: str = "") -> Figure:
    """Draw a row a run, in their order: accuracy, multiply-adds and parameters as bars.

    A warning stands beside the title.
    """
    rows = len(points)
    figure = blank_figure(11, 1.5 + 0.34 * rows)
    top, bottom = 1 - 0.95 / figure.get_figheight(), 0.2 / figure.get_figheight()
    panels = figure.subplots(
        1, 3, sharey=True,
        gridspec_kw={"left": 0.21, "right": 0.95, "top": top, "bottom": bottom, "wspace": 0.18},
    )  # fmt: skip
    values = (
        ("top-1, %", [point.top1 for point in points], "{:.1f}"),
        ("10⁹ multiply-adds of a clip", [point.gmacs for point in points], "{:.3g}"),
        ("10⁶ parameters", [point.params / 1e6 for point in points], "{:.3g}"),
    )
    for axes, (name, numbers, form), colour in zip(panels, values, COLOURS, strict=True):
        _bars(axes, name, numbers, form, colour)
    names = [fitted(figure, in_one_line(point.name), 2.1, size=10) for point in points]
    panels[0].set_yticks(range(rows), names, color=INK, size=10, parse_math=False)
    panels[0].invert_yaxis()
    height = 1 - 0.4 / figure.get_figheight()
    figure.text(0.02, height, title, size=16, weight="bold", color=INK)
    figure.text(0.95, height, warning, size=10, color=WRONG, ha="right")
    return figure


def _bars(axes: Axes, name: str, numbers: Sequence[float], form: str, colour: str) -> None:
    axes.barh(range(len(numbers)), numbers, height=0.62, color=colour)
    for row, number in enumerate(numbers):
        text = form.format(number)
        axes.annotate(
            text, (number, row), (4, 0), textcoords="offset points", va="center", size=9, color=INK
        )
    axes.set_title(name, loc="left", size=11, color=FAINT)
    axes.set_xlim(0, max(*numbers, 1e-9) * 1.18)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(GRID)
