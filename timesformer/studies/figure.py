"""From the rows of a study to its files: NAME_DATA.csv and NAME_DATA.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.studies.plan import Plan
from timesformer.studies.results import Row, csv_rows
from timesformer.utils.files import write_csv

if TYPE_CHECKING:
    from timesformer.visualization.studies import Mark


def figure_files(out: Path, study: str, data: str) -> tuple[Path, Path]:
    """Return the CSV and the PNG of a study on some data."""
    return out / f"{study}_{data}.csv", out / f"{study}_{data}.png"


def write_figure(plan: Plan, rows: list[Row], data: str, out: Path) -> tuple[Path, Path]:
    """Write numbers and picture, and return their files.

    Args:
        plan: the study.
        rows: its numbers.
        data: name of the panels, in the names of the files.
        out: folder.
    """
    # These need matplotlib.
    from timesformer.visualization.studies import Panel, draw_study
    from timesformer.visualization.style import write_png

    numbers, picture = figure_files(out, plan.name, data)
    write_csv(numbers, csv_rows(plan, rows))
    panels: dict[str, Panel] = {}
    for row in rows:
        of = row.point.data
        panel = panels.setdefault(of.name, Panel(of.title, [], of.paper, of.same, of.lines))
        panel.marks.append(_mark(row))
    study = plan.study
    drawn = draw_study(study.title, [*panels.values()], study.x_label, study.x_log, study.source)
    write_png(picture, drawn)
    return numbers, picture


def _mark(row: Row) -> Mark:
    from timesformer.visualization.studies import Mark

    found, variant = row.estimate, row.point.variant
    mean, low, high, count = found or (None, None, None, 0)
    return Mark(
        label=variant.label,
        mean=mean,
        low=low,
        high=high,
        seeds=count,
        missing=row.missing,
        paper=variant.paper,
        x=row.x,
        series=variant.series,
        gmacs=row.gmacs,
    )
