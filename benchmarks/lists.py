"""What a rank takes to start with a long list: seconds, and memory beyond that of the libraries.

    python benchmarks/lists.py --rows 100000 1000000 10000000

Each number of rows runs in a process of its own, on a list that is made up, of rows
`train/class_017/video_000012345.mp4 17`. A rank reads it, counts its classes, takes its digest,
looks for labels that can't be meant (the main process alone), and draws the first batch of an
epoch. Then a worker is forked that looks at every record: what it copies of the list by that is
memory that each worker takes. Last an index of shards with as many members is opened, and members
are found in it: first looks, and what of the index becomes memory that isn't shared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from report import environment

from timesformer.datasets.lists.consistency import doubts
from timesformer.datasets.lists.records import Records, class_counts
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.loader import TrainBatches
from timesformer.datasets.video.shard_index import Entry, ShardIndex, row_of
from timesformer.engine.resume import list_digest
from timesformer.utils.text import format_table

CLASSES = 400
LOOKS = 2_000  # for members of an index
HEADER = (
    "rows", "read s", "count s", "digest s", "doubts s", "batch s", "start s", "peak MiB",
    "kept MiB", "B a row", "worker MiB", "look-up µs", "index MiB",
)  # fmt: skip
T = TypeVar("T")


def name_of(row: int) -> str:
    """Return a path."""
    return f"train/class_{row % CLASSES:03d}/video_{row:09d}.mp4"


def status(key: str, file: str = "status") -> float:
    """Return a number of MiB that Linux tells of this process."""
    text = Path(f"/proc/self/{file}").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) / 1024


def timed(work: Callable[[], T], seconds: list[float]) -> T:
    """Do something, and note how long it took."""
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
    return result


def look_at_all(records: Records, results: Queue[float]) -> None:
    """Tell how much of its own memory a process takes to look at every record, in MiB."""
    before = status("Private_Dirty", "smaps_rollup")
    for _ in records:
        pass
    results.put(status("Private_Dirty", "smaps_rollup") - before)


def measure(folder: str, rows: int, results: Queue[tuple[str, ...]]) -> None:
    """Start as a rank does, and tell the row of the table."""
    torch.set_num_threads(1)
    path, names = Path(folder) / "train.csv", [f"class_{k:03d}" for k in range(CLASSES)]
    base, seconds = status("VmRSS"), list[float]()
    records = timed(lambda: read_list(path, CLASSES, prefix="/data/videos"), seconds)
    timed(lambda: class_counts(records, CLASSES), seconds)
    timed(lambda: list_digest(records), seconds)
    timed(lambda: doubts(records, CLASSES, names), seconds)
    batches = iter(TrainBatches(rows, 8, 0, 1, 0))
    timed(lambda: next(batches), seconds)
    memory = [status("VmHWM") - base, status("VmRSS") - base, records.nbytes / rows]
    context = multiprocessing.get_context("fork")
    copied: Queue[float] = context.Queue()
    worker = context.Process(target=look_at_all, args=(records, copied))
    worker.start()
    memory.append(copied.get())
    worker.join()
    found = list[float]()
    before = status("RssAnon")
    index = ShardIndex(Path(folder) / "index.tsv")
    wanted = np.random.default_rng(0).integers(rows, size=LOOKS).tolist()
    timed(lambda: [index.find(name_of(row)) for row in wanted], found)
    shown = [f"{s:,.2f}" for s in (*seconds, sum(seconds))] + [f"{m:,.0f}" for m in memory]
    shown += [f"{1e6 * found[0] / LOOKS:,.0f}", f"{status('RssAnon') - before:,.1f}"]
    results.put((f"{rows:,}", *shown))


def write_files(folder: Path, rows: int) -> None:
    """Write a list, and the index of shards that have its videos."""
    order = np.random.default_rng(1).permutation(rows).tolist()
    with (folder / "train.csv").open("w", encoding="utf-8") as file:
        file.writelines(f"{name_of(row)} {row % CLASSES}\n" for row in order)
    with (folder / "index.tsv").open("wb") as index:
        for label in range(CLASSES):  # sorted by name
            for row in range(label, rows, CLASSES):
                index.write(row_of(name_of(row), Entry(row // 1000, 512 * row, 1 << 20, 64 * "0")))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    args = parser.parse_args()
    print(environment())
    table: list[tuple[str, ...]] = [HEADER]
    context = multiprocessing.get_context("spawn")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), rows)
            results: Queue[tuple[str, ...]] = context.Queue()
            process = context.Process(target=measure, args=(folder, rows, results))
            process.start()
            table.append(results.get())
            process.join()
    print(format_table(table))


if __name__ == "__main__":
    main()
