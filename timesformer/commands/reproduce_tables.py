"""Print the paper's tables of costs with our own numbers beside them.

It needs no weights, videos or GPUs: models are built without memory, and their products are
counted. For a table of trained runs, see `timesformer compare-runs`.

Example:
  timesformer reproduce-tables --output tables.txt
"""

from __future__ import annotations

from collections.abc import Sequence

from timesformer.models.paper_tables import cost_tables
from timesformer.utils.files import make_place, write_text
from timesformer.utils.parser import CommandParser, output_path


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = CommandParser("reproduce-tables", __doc__)
    parser.add_argument(
        "--output", type=output_path, metavar="FILE", help="write the text there too"
    )
    args = parser.parse(argv)
    if args.output:
        make_place(args.output)
    text = cost_tables()
    print(text)
    if args.output:
        write_text(args.output, text + "\n")
