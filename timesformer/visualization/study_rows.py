"""Figures of studies whose variants are rows with their names."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timesformer.visualization.study_parts import MISSING, TOP1, WIDTH, Panel, bare, dashed, hollow
from timesformer.visualization.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    WRONG,
    blank_figure,
    fitted,
)

ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a number on a line


def draw_rows(panels: Sequence[Panel]) -> Figure:
    """Draw a row for each mark, the paper's beside them."""
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
    bare(axes, panel.title)
    for row, mark in enumerate(panel.marks):
        if panel.same and mark.paper is not None:
            hollow(axes, mark.paper, row, COLOURS[0])
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
        dashed(axes, name, value, upright=True)
    if panel.lines:
        axes.set_xlim(-2, 104)
    else:
        axes.margins(x=0.25)
    axes.set_xlabel(TOP1, size=10, color=INK)
    axes.grid(axis="x", color=GRID)


def _paper_rows(axes: Axes, panel: Panel) -> None:
    bare(axes, f"paper, {panel.paper}", weight="normal")
    for row, mark in enumerate(panel.marks):
        if mark.paper is not None:
            hollow(axes, mark.paper, row, FAINT)
            axes.annotate(
                f"{mark.paper:.1f}", (mark.paper, row), (0, 8), textcoords="offset points",
                ha="center", size=9, color=FAINT,
            )  # fmt: skip
    axes.margins(x=0.25)
    axes.set_xlabel(TOP1, size=10, color=FAINT)
    axes.grid(axis="x", color=GRID)
