"""Redo a figure or a table of the papers, with our own numbers.

A table needs no training: models are built without memory, and their products are counted.

Examples:
  timesformer reproduce --list
  timesformer reproduce --table schemes --out tables
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timesformer.studies.catalogue  # noqa: F401  (registers figures and tables)
from timesformer.studies.registry import STUDY_REGISTRY, TABLE_REGISTRY, find, names, summary
from timesformer.utils.files import make_places, write_text
from timesformer.utils.parser import CommandParser, output_path
from timesformer.utils.text import format_table


def list_all() -> str:
    """Return a table of all figures and tables."""
    rows = [("", "name", "what it shows")]
    for option, registry in (("--figure", STUDY_REGISTRY), ("--table", TABLE_REGISTRY)):
        rows += [(option, name, summary(registry.get(name))) for name in names(registry)]
    return format_table(rows)


def print_table(name: str, out: Path | None) -> None:
    """Print a table, and write it to OUT/NAME.txt."""
    table = find(TABLE_REGISTRY, "--table", name)
    if out:
        make_places(out, [f"{name}.txt"])
    text = table()
    print(text)
    if out:
        write_text(out / f"{name}.txt", text + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the words say."""
    parser = CommandParser("reproduce", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", metavar="NAME", help="print a table")
    what.add_argument("--list", action="store_true", help="say which figures and tables there are")
    parser.add_argument("--out", type=output_path, metavar="DIR", help="write it there too")
    args = parser.parse(argv)
    if args.list:
        print(list_all())
    else:
        print_table(args.table, args.out)
