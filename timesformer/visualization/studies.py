"""The figure of a study: our accuracies with intervals, the paper's as hollow marks beside them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from timesformer.utils.text import counted
from timesformer.visualization.study_lines import draw_lines
from timesformer.visualization.study_parts import Mark, Panel
from timesformer.visualization.study_rows import draw_rows
from timesformer.visualization.style import FAINT, INK, WRONG, all_scripts

__all__ = ["Mark", "Panel", "draw_study"]


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
    figure = draw_lines(panels, x_label, x_log) if x_label else draw_rows(panels)
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
