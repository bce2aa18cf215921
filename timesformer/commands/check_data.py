"""Checks the data of a recipe before it costs GPU time: every list, every file.

python tools/check_data.py --cfg FILE [--splits train val] [--decode] [KEY VALUE ...]

Prints a table for each split and writes, to OUTPUT_DIR/check_data or --output:

    problems.csv          one row for each problem: split, path, where in which list, kind, problem
    classes.csv           videos of each class in each split
    data.png              frame rates, sizes, durations, videos per class
    {train,val,test}.csv  the lists without files that are missing or broken

Exit status: 0 all is well, 1 there are problems, 2 it couldn't be checked.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.inspect import (
    BROKEN,
    MISSING,
    InspectOptions,
    SplitReport,
    VideoReport,
    list_path,
    read_splits,
    take_splits,
    write_list,
)
from timesformer.utils.errors import UserError, run_tool
from timesformer.utils.files import written_whole
from timesformer.utils.processes import in_processes
from timesformer.utils.text import format_table

LIST, OUTSIDE, LEAK, TWICE = "list", "link out", "leak", "twice"
TOLERANCE = 0.03  # a smaller difference to the known sizes is nothing to speak of


class KnownSize(NamedTuple):
    """Videos that a data set has, or had for the paper."""

    name: str
    dataset: str
    classes: int
    train: int
    evaluation: int


KNOWN_SIZES = (
    KnownSize("Kinetics-400", "kinetics", 400, 240_000, 19_800),
    KnownSize("Kinetics-600", "kinetics", 600, 366_000, 28_000),
    KnownSize("Something-Something V2", "ssv2", 174, 168_913, 24_777),
    KnownSize("Diving-48 V2", "diving48", 48, 15_027, 1_970),
    KnownSize("Diving-48 V1", "diving48", 48, 15_943, 2_096),
    KnownSize("the long-term task of HowTo100M", "howto100m", 1059, 85_000, 35_000),
)


class Problem(NamedTuple):
    """A row of problems.csv."""

    split: str
    path: str
    where: str
    kind: str
    problem: str


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --cfg FILE [options] [KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the recipe to train")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="train val test (all)")
    parser.add_argument(
        "--decode", action="store_true", help="decode every frame of every file, not just the first"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N",
        help="processes (one for each core); 0: none but this one",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR", help="OUTPUT_DIR/check_data")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(argv)
    args.splits, args.opts = take_splits(args.splits, args.opts)
    if args.workers < 0:
        raise UserError(f"--workers {args.workers}: must be 0 or more")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(argv)
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    check(cfg)
    output = args.output or Path(cfg.OUTPUT_DIR) / "check_data"
    datasets, unreadable = read_splits(cfg, args.splits)
    options = InspectOptions(
        decode=args.decode,
        root=cfg.DATA.PATH_PREFIX,
        frames_fps=cfg.DATA.FRAMES_FPS,
        timeout=cfg.DATA.DECODE_TIMEOUT,
    )
    videos = inspect_all(datasets, options, args.workers)
    reports = [
        SplitReport(
            split, dataset, [videos[r.path] for r in dataset.records], cfg.MODEL.NUM_CLASSES
        )
        for split, dataset in datasets.items()
    ]
    problems = [Problem(split, "", "", LIST, why) for split, why in unreadable.items()]
    for report in reports:
        problems += [*file_problems(report), *repeated(report)]
    problems += leaks(reports)

    print_tables(reports, problems)
    for note in notes(reports, cfg):
        print(f"- {note}")
    write_results(output, reports, problems, cfg)
    if problems:
        print(f"problems: {len(problems):,}, see {output / 'problems.csv'}")
        sys.exit(1)
    print("no problems")


def inspect_all(
    datasets: Mapping[str, VideoDataset], options: InspectOptions, workers: int
) -> dict[str, VideoReport]:
    """Inspects each file once, even one that is in several splits."""
    paths = list(dict.fromkeys(r.path for d in datasets.values() for r in d.records))
    found: dict[str, VideoReport] = {}
    with (
        tqdm(total=len(paths), unit="video", desc="check", disable=None) as bar,
        closing(in_processes(options, paths, workers, options.crashed)) as results,
    ):
        for path, report in results:
            found[path] = report
            bar.update()
    return found


def file_problems(report: SplitReport) -> Iterator[Problem]:
    """Files that are missing or broken, or not where they seem to be."""
    for i, (record, video) in enumerate(zip(report.dataset.records, report.videos, strict=True)):
        if video.kind:
            yield Problem(report.name, record.path, report.where(i), video.kind, video.reason)
        if video.outside:
            text = f"leads out of DATA.PATH_PREFIX, to {video.real}"
            yield Problem(report.name, record.path, report.where(i), OUTSIDE, text)


def repeated(report: SplitReport) -> Iterator[Problem]:
    """Videos that are more than once in a split, as links or copies."""
    records = report.dataset.records
    first: dict[tuple[str, int, int | None], int] = {}
    for i, (record, video) in enumerate(zip(records, report.videos, strict=True)):
        before = first.setdefault((video.same, record.start, record.end), i)
        if before != i and video.kind != MISSING:
            other = "" if records[before].label == record.label else " with another label"
            text = f"the same video as {records[before].path} ({report.where(before)}){other}"
            yield Problem(report.name, record.path, report.where(i), TWICE, text)


def leaks(reports: Sequence[SplitReport]) -> Iterator[Problem]:
    """Videos to evaluate on that are for training as well."""
    training = next((report for report in reports if report.name == "train"), None)
    if training is None:
        return
    place = {video.same: i for i, video in enumerate(training.videos)}
    for report in reports:
        pairs = zip(report.dataset.records, report.videos, strict=True)
        for i, (record, video) in enumerate(pairs):
            if report is not training and video.same in place:
                where = training.where(place[video.same])
                text = f"is for training as well ({where})"
                yield Problem(report.name, record.path, report.where(i), LEAK, text)


def notes(reports: Sequence[SplitReport], cfg: CfgNode) -> Iterator[str]:
    """What is worth knowing without being wrong."""
    for report in reports:
        names = report.dataset.class_names
        empty = np.flatnonzero(report.class_counts == 0)
        if len(empty):
            some = ", ".join(names[k] if names else str(k) for k in empty[:5])
            more = ", …" if len(empty) > 5 else ""
            yield f"{report.name}: classes without a video, {len(empty)}: {some}{more}"
        if any(record.start or record.end is not None for record in report.dataset.records):
            yield f"{report.name}: the clean list has whole videos, no start and end frames"
    videos = {report.name: {video.same for video in report.videos} for report in reports}
    if both := len(videos.get("val", set()) & videos.get("test", set())):
        yield f"val and test share {both:,} videos, as is usual where only one of them is public"
    yield from size_warnings(reports, cfg.TRAIN.DATASET)


def size_warnings(reports: Sequence[SplitReport], dataset: str) -> Iterator[str]:
    """Say how much of a known data set is there, and what that means for a comparison."""
    classes = reports[0].num_classes
    known = [k for k in KNOWN_SIZES if k.dataset == dataset.lower() and k.classes == classes]
    for report in reports:
        count, training = len(report.videos), report.name == "train"
        sizes = {k.train if training else k.evaluation: k.name for k in known}
        if not sizes:
            return
        size = min(sizes, key=lambda size: abs(size - count))
        share = count / size
        if abs(share - 1) <= TOLERANCE:
            continue
        if share > 1:
            effect = "it isn't the set that the paper used, so results can't be compared with it"
        elif training:
            effect = "a model that sees less tends to stay below the paper's accuracy"
        elif share < 0.5:
            effect = "too few for a comparison with the paper"
        else:
            effect = (
                f"an accuracy A on these is between {share:.3f} A and {share:.3f} A + "
                f"{100 * (1 - share):.1f} points on all of them; compare that with the paper's"
            )
        yield (
            f"{report.name} has {count:,} videos, {100 * share:.3g} % of the {size:,} of "
            f"{sizes[size]}: {effect}"
        )


def print_tables(reports: Sequence[SplitReport], problems: Sequence[Problem]) -> None:
    """Prints counts, then measures, a row for each split."""
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


def write_results(
    output: Path, reports: Sequence[SplitReport], problems: Sequence[Problem], cfg: CfgNode
) -> None:
    """Writes problems.csv, classes.csv, the clean lists and the picture."""
    output.mkdir(parents=True, exist_ok=True)
    _write_csv(output / "problems.csv", [Problem._fields, *problems])
    names = reports[0].dataset.class_names or [""] * reports[0].num_classes
    counts = [report.class_counts.tolist() for report in reports]
    classes = zip(range(len(names)), names, *counts, strict=True)
    header = ("label", "name", *(report.name for report in reports))
    _write_csv(output / "classes.csv", [header, *classes])
    for report in reports:
        pairs = zip(report.dataset.records, report.videos, strict=True)
        rows = [(list_path(r.path, cfg), r.label) for r, video in pairs if not video.kind]
        write_list(output / f"{report.name}.csv", rows, cfg)
        print(f"wrote {output / report.name}.csv, {len(rows):,} of {len(report.videos):,} videos")
    draw(output / "data.png", reports, cfg.TRAIN.DATASET)


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with (
        written_whole(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)


def draw(path: Path, reports: Sequence[SplitReport], title: str) -> None:
    """Draws the splits, if matplotlib is there."""
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


if __name__ == "__main__":
    run_tool(main)
