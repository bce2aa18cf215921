"""From the rows of a study to its files: NAME_DATA.csv and NAME_DATA.png."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.studies.plan import Plan
from timesformer.studies.results import Row, csv_rows
from timesformer.utils.errors import UserError
from timesformer.utils.files import write_csv

if TYPE_CHECKING:
    from timesformer.visualization.studies import Mark


def figure_files(out: Path, study: str, data: str) -> tuple[Path, Path]:
    """Return the CSV and the PNG of a study on some data."""
    return out / f"{study}_{data}.csv", out / f"{study}_{data}.png"


def check_settings(plan: Plan, numbers: Path) -> None:
    """Make sure that a figure isn't written over one of other settings, whose runs are others.

    Args:
        plan: of the figure that is to be written.
        numbers: its CSV; it may not be there yet.

    Raises:
        UserError: it is there, and has none of the runs of one of the plan's points.
    """
    try:
        with numbers.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return
    before = {
        (row.get("data"), row.get("variant")): (row.get("runs") or "").split() for row in rows
    }
    for point in plan.points:
        found = before.get((point.data.name, point.variant.name))
        if found and not {run.name for run in point.runs} & {*found}:
            raise UserError(
                f"{numbers}: is of other settings (its {point.variant.name} is {found[0]}): give "
                "the KEY VALUE pairs that it was made with, or another --out"
            )


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
