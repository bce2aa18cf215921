"""What papers say that other models reach: `competitors.csv`, each row with the table it is from.

Nothing in it was measured here. A row is what its source prints, of its own models or of others.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("competitors.csv")
DATA_SETS = {
    "k400": "Kinetics-400",
    "k600": "Kinetics-600",
    "ssv2": "Something-Something V2",
    "diving48": "Diving-48",
    "howto100m": "HowTo100M, long-term task",
}
KINDS = ("convolution", "transformer", "timesformer")


class Result(NamedTuple):
    """A row of the file; what the source doesn't say is '' or None.

    Attributes:
        data_set: one of `DATA_SETS`.
        model: its name.
        kind: one of `KINDS`.
        pretraining: what it was trained on before, "none" if the source says that it wasn't.
        top1: accuracy in %.
        top5: likewise.
        tflops: 10¹² multiply-adds of all views.
        views: clips × crops of a video in the test.
        parameters: millions.
        source: arXiv number of the paper that prints this row.
        table: its table.
    """

    data_set: str
    model: str
    kind: str
    pretraining: str
    top1: float
    top5: float | None
    tflops: float | None
    views: str
    parameters: float | None
    source: str
    table: str


@cache
def read_results() -> tuple[Result, ...]:
    """Return all rows, as they stand in the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_result(row) for row in csv.DictReader(file))


def results_on(data_sets: Iterable[str]) -> dict[str, list[Result]]:
    """Return the rows of each of some data sets, the lowest accuracy first."""
    by_accuracy = sorted(read_results(), key=lambda result: result.top1)
    return {name: [r for r in by_accuracy if r.data_set == name] for name in data_sets}


def _result(row: dict[str, str]) -> Result:
    numbers = ("top5", "tflops", "parameters")
    some: dict[str, float | None] = {n: float(row[n]) if row[n] else None for n in numbers}
    texts = {name: row[name] for name in Result._fields if name not in (*numbers, "top1")}
    return Result(top1=float(row["top1"]), **some, **texts)  # type: ignore[arg-type]
