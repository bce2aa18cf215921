"""Prints a table of runs from their stats.jsonl.

python tools/compare_runs.py runs/a runs/b …
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timesformer.utils.errors import UserError, run_tool

COLUMNS = ("run", "scheme", "params", "epochs", "train", "val top-1", "top-1", "top-5", "views")


def read_stats(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's stats.jsonl.

    Raises:
        UserError: if there is no such file, or a line in it isn't JSON.
    """
    path = run / "stats.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); is {run} a run?") from error
    stats = []
    for number, line in enumerate(lines, 1):
        try:
            stats.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error
    return stats


def row(run: Path) -> list[str]:
    """One line of the table; what a run doesn't have is a dash."""
    last: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    for line in read_stats(run):
        last[line.get("split", "")] = line
        if line.get("split") == "train_epoch":
            seconds[line["epoch"]] = line["seconds"]  # a resumed epoch counts once
    start, test, val = (last.get(split, {}) for split in ("start", "test_final", "val"))

    def percent(stats: dict[str, Any], key: str) -> str:
        return f"{stats[key]:.1f} %" if stats.get(key) is not None else "-"

    return [
        run.name,
        start.get("attention_type", "-"),
        f"{start['params']:,}" if "params" in start else "-",
        last.get("train_epoch", {}).get("epoch", "-"),
        f"{sum(seconds.values()):.0f} s" if seconds else "-",
        percent(val, "top1_acc"),
        percent(test, "top1_acc"),
        percent(test, "top5_acc"),
        test.get("views", "-"),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR")
    table = [list(COLUMNS), *map(row, parser.parse_args(argv).runs)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    run_tool(main)
