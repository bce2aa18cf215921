"""Print a table of runs: what their models cost, and how often they are right.

Accuracy and times are those in stats.jsonl; multiply-adds are counted for the model and the clip
that the newest checkpoint's config describes.

Example:
  timesformer compare-runs runs/a runs/b --plot runs.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from timesformer.engine.runs import COLUMNS, differing_tests, read_run
from timesformer.utils.errors import UserError
from timesformer.utils.files import make_place
from timesformer.utils.parser import CommandParser, input_path, png_path
from timesformer.utils.text import format_table


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and draw it if that is wanted."""
    parser = CommandParser("compare-runs", __doc__)
    parser.add_argument("runs", nargs="+", type=input_path, metavar="OUTPUT_DIR")
    parser.add_argument("--plot", type=png_path, metavar="PNG", help="accuracy over cost, a PNG")
    args = parser.parse(argv)
    if args.plot:
        make_place(args.plot)
    runs = []
    for folder in args.runs:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
    if not runs:
        raise UserError("none of these folders is a run")
    print(format_table([COLUMNS, *(run.cells for run in runs)]))
    if warning := differing_tests(runs):
        print(f"- {warning}")
    for note in (note for run in runs for note in run.notes):
        print(f"- {note}")
    if args.plot:
        # These need matplotlib.
        from timesformer.visualization.runs import Point, draw_runs
        from timesformer.visualization.style import write_png

        points = [Point(*run.point) for run in runs if run.point]
        if not points:
            raise UserError("--plot: none of the runs has been tested")
        write_png(args.plot, draw_runs(points, "Accuracy and cost", warning))
        print(f"wrote {args.plot}")
