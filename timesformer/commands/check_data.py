"""Check the data of a recipe before it costs GPU time: every list, every file.

Prints a table for each split and writes, to OUTPUT_DIR/check_data or --output:

    problems.csv          one row for each problem: split, path, where in which list, kind, problem
    classes.csv           videos of each class in each split
    data.png              frame rates, sizes, durations, videos per class
    {train,val,test}.csv  the lists without files that are missing or broken

It also makes copies of a few files as `prepare-data` does, in a temporary folder, and says what
copies of all would save.

Exit status: 0 all is well, 1 there are problems, 2 it couldn't be checked.

Example:
  timesformer check-data --cfg Kinetics/TimeSformer_divST_8x32_224 --splits train val --decode
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from timesformer.config.node import CfgNode
from timesformer.datasets.build import SPLITS
from timesformer.prepare.check import (
    CLASSES,
    LEAK,
    LIST,
    OUTSIDE,
    PROBLEMS,
    TWICE,
    Checked,
    Finding,
    check_data,
    write_clean_list,
    write_tables,
)
from timesformer.prepare.inspect import BROKEN, MISSING, SplitReport
from timesformer.prepare.savings import measure
from timesformer.prepare.transcode import TranscodeSettings
from timesformer.utils.errors import UserError
from timesformer.utils.files import make_places
from timesformer.utils.parser import CommandParser, load_recipe, output_path
from timesformer.utils.run_lock import run_lock
from timesformer.utils.text import counted, format_table

PICTURE = "data.png"
SAMPLE = 4
WORTH_IT = 1.25  # times as fast: what is gained by less is no reason for copies


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("check-data", __doc__, "--cfg FILE [options] [KEY VALUE ...]")
    parser.add_cfg("the recipe to train: a YAML file or a name")
    parser.add_splits(SPLITS)
    parser.add_argument(
        "--decode", action="store_true", help="decode every frame of every file, not just the first"
    )
    parser.add_argument(
        "--digests", action="store_true",
        help="of videos in shards, hold all their bytes against the SHA-256 of the index",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=int, default=SAMPLE, metavar="N",
        help="files to measure on what prepared copies would save (%(default)s; 0: don't)",
    )  # fmt: skip
    parser.add_workers()
    parser.add_argument("--output", type=output_path, metavar="DIR", help="OUTPUT_DIR/check_data")
    parser.add_pairs()
    args = parser.parse(argv)
    if args.sample < 0:
        raise UserError(f"--sample {args.sample}: must be 0 or more")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Print what is wrong and what is worth knowing, and write lists without what is wrong."""
    args = parse_args(argv)
    cfg = load_recipe(args)
    names = (PROBLEMS, CLASSES, PICTURE, *(f"{split}.csv" for split in SPLITS))
    output = make_places(args.output or Path(cfg.OUTPUT_DIR) / "check_data", names)
    with run_lock(output, "--output"):
        found = check(args, cfg, output)
    if found.problems:
        print(f"problems: {len(found.problems):,}, see {output / PROBLEMS}")
        sys.exit(1)
    if found.notes:
        print(f"no broken files; {counted(len(found.notes), 'warning')} above")
    else:
        print("no problems")


def check(args: argparse.Namespace, cfg: CfgNode, output: Path) -> Checked:
    """Check, print and write into a folder that is this process's; return what was found."""
    found = check_data(cfg, args.splits, args.decode, args.workers, args.digests)
    print_tables(found.reports, found.problems)
    for note in found.notes:
        print(f"- {note}")
    write_tables(output, found)
    for report in found.reports:
        path, count = write_clean_list(output, report, cfg)
        print(f"wrote {path}, {count:,} of {counted(len(report.videos), 'video')}")
    draw(output / PICTURE, found.reports, cfg.TRAIN.DATASET)
    if args.sample:
        print_savings(args, found.reports, TranscodeSettings(frames_fps=cfg.DATA.FRAMES_FPS))
    return found


def print_savings(
    args: argparse.Namespace, reports: Sequence[SplitReport], settings: TranscodeSettings
) -> None:
    """Print what prepared copies would save, and the command that makes them."""
    try:
        found = measure(reports, args.sample, settings)
    except UserError as error:
        print(f"what copies would save isn't known: {error}")
        return
    if found is None:
        return
    rows = [("", "ms a clip", "clips/s of a core", "GB of all videos")]
    for name, ms, size in (
        ("as they are", found.clip_ms, found.disk),
        ("prepared", found.copy_ms, found.copy_disk),
    ):
        rows.append((name, f"{ms:.1f}", f"{1e3 / ms:.1f}", f"{size / 1e9:.3g}"))
    print(
        f"\nWhat copies by `timesformer prepare-data` save (short side {settings.short_side}, a "
        f"keyframe every {settings.gop} frames),\nmeasured on {found.sampled} of "
        f"{counted(found.videos, 'video')}:\n{format_table(rows, gap='   ')}"
    )
    gain = found.clip_ms / found.copy_ms
    if gain < WORTH_IT:
        print(f"They load {gain:.2f} times as fast: it isn't worth while.")
        return
    words = ["--cfg", str(args.cfg_file), "--output", "PREPARED", *args.opts]
    print(
        f"They load {gain:.1f} times as fast, and making them takes {found.hours:.2g} hours of one "
        f"core:\n  timesformer prepare-data {shlex.join(words)}"
    )


def print_tables(reports: Sequence[SplitReport], problems: Sequence[Finding]) -> None:
    """Print counts, then measures, a row for each split."""
    kinds = (MISSING, BROKEN, OUTSIDE, LEAK, TWICE)
    rows: list[tuple[str, ...]] = [("split", "videos", "classes", *kinds)]
    found = Counter((problem.split, problem.kind) for problem in problems)
    for report in reports:
        classes = f"{np.count_nonzero(report.class_counts)} / {report.num_classes}"
        counts = (f"{found[report.name, kind]:,}" for kind in kinds)
        rows.append((report.name, f"{len(report.videos):,}", classes, *counts))
    print(format_table(rows, gap="   "))
    rows = [("min / median / max", "frames/s", "short side", "seconds", "shorter than a clip")]
    for report in reports:
        spans = (_span(report.values(name)) for name in ("fps", "short_side", "duration"))
        seconds = report.clip_seconds
        short = f"{report.shorter_than_a_clip:,} ({seconds:.3g} s)" if seconds else "-"
        rows.append((report.name, *spans, short))
    print()
    print(format_table(rows, gap="   "))
    print()
    for problem in problems:
        if problem.kind == LIST:
            print(f"- {problem.split}: {problem.problem}")


def _span(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    return " / ".join(f"{x:.4g}" for x in (values.min(), np.median(values), values.max()))


def draw(path: Path, reports: Sequence[SplitReport], title: str) -> None:
    """Draw the splits, if matplotlib is there."""
    try:
        from timesformer.visualization.data_report import SplitData, draw_report
        from timesformer.visualization.style import write_png
    except ModuleNotFoundError as error:
        print(f"no {path.name}: {error}; pip install 'timesformer[viz]'")
        return
    splits = [
        SplitData(
            name=report.name,
            videos=len(report.videos),
            fps=report.values("fps"),
            short_side=report.values("short_side"),
            duration=report.values("duration"),
            class_counts=report.class_counts,
        )
        for report in reports
    ]
    write_png(path, draw_report(splits, title, reports[0].clip_seconds))
    print(f"wrote {path}")
