"""Everything that is wrong with the data of a recipe, and what is worth knowing about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from timesformer.clips.sampling import RateSampler
from timesformer.config.layout import ranks, too_few_for_a_batch
from timesformer.config.node import CfgNode
from timesformer.datasets.build import fraction_of
from timesformer.datasets.lists.consistency import doubts
from timesformer.datasets.lists.frame_rows import image_name
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.lists.written import list_path, write_frame_list, write_list
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.compare_shards import differences
from timesformer.prepare.inspect import (
    MISSING,
    InspectOptions,
    SplitReport,
    VideoReport,
    read_splits,
)
from timesformer.utils.files import write_csv
from timesformer.utils.processes import in_processes
from timesformer.utils.text import counted

PROBLEMS, CLASSES = "problems.csv", "classes.csv"
LIST, OUTSIDE, LEAK, TWICE, SHARD = "list", "link out", "leak", "twice", "shard"
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
    KnownSize("Kinetics-600", "kinetics", 600, 392_000, 30_000),
    KnownSize("Something-Something V2", "ssv2", 174, 168_913, 24_777),
    KnownSize("Diving-48 V2", "diving48", 48, 15_027, 1_970),
    KnownSize("Diving-48 V1", "diving48", 48, 15_943, 2_096),
    KnownSize("the long-term task of HowTo100M", "howto100m", 1059, 85_000, 35_000),
)


class Finding(NamedTuple):
    """A row of problems.csv."""

    split: str
    path: str
    where: str
    kind: str
    problem: str


class Checked(NamedTuple):
    """What `check_data` found.

    Attributes:
        reports: of the splits that can be read.
        problems: what is wrong, split by split.
        notes: what is worth knowing, in words.
    """

    reports: list[SplitReport]
    problems: list[Finding]
    notes: list[str]


def check_data(
    cfg: CfgNode,
    splits: Sequence[str] | None = None,
    decode: bool = False,
    workers: int = 0,
    digests: bool = False,
) -> Checked:
    """Inspect all files of a recipe's data sets, and compare the splits.

    Args:
        cfg: the recipe.
        splits: of train, val and test; none for all.
        decode: decode every frame of every file rather than the first one.
        workers: number of processes; 0: none but this one.
        digests: hold what is in shards against the SHA-256 of their index.

    Raises:
        AnnotationError: no list can be read.
        ConfigError: there is no such data set, or it isn't one of video files.
        ShardsError: the videos are in shards, of which one is missing.
    """
    datasets, unreadable = read_splits(cfg, splits)
    shards = next(iter(datasets.values())).reader.shards
    options = InspectOptions(
        decode=decode,
        root=cfg.DATA.PATH_PREFIX,
        frames_fps=cfg.DATA.FRAMES_FPS,
        timeout=cfg.DATA.DECODE_TIMEOUT,
        shards=shards,
        digests=digests,
    )
    videos = inspect_all(datasets, options, workers)
    reports = [
        SplitReport(
            split, data, [videos[r.path, r.images] for r in data.records], cfg.MODEL.NUM_CLASSES
        )
        for split, data in datasets.items()
    ]
    problems = [Finding(split, "", "", LIST, why) for split, why in unreadable.items()]
    if shards is not None:
        problems += [Finding("", path, "", SHARD, why) for path, why in differences(shards)]
    for report in reports:
        problems += [*file_problems(report), *repeated(report)]
    problems += leaks(reports)
    return Checked(reports, problems, list(notes(reports, cfg)))


def inspect_all(
    datasets: Mapping[str, VideoDataset], options: InspectOptions, workers: int
) -> dict[tuple[str, Images | None], VideoReport]:
    """Inspect each file, or images of a folder, once, even what is in several splits."""
    paths = list(dict.fromkeys((r.path, r.images) for d in datasets.values() for r in d.records))
    found: dict[tuple[str, Images | None], VideoReport] = {}
    with (
        tqdm(total=len(paths), unit="video", desc="check", disable=None) as bar,
        closing(
            in_processes(options.of_record, paths, workers, lambda video: options.crashed(video[0]))
        ) as results,
    ):
        for path, report in results:
            found[path] = report
            bar.update()
    return found


def file_problems(report: SplitReport) -> Iterator[Finding]:
    """Yield files that are missing or broken, or not where they seem to be."""
    for i, (record, video) in enumerate(zip(report.dataset.records, report.videos, strict=True)):
        if video.kind:
            yield Finding(report.name, record.path, report.where(i), video.kind, video.reason)
        if video.outside:
            text = f"leads out of DATA.PATH_PREFIX, to {video.real}"
            yield Finding(report.name, record.path, report.where(i), OUTSIDE, text)


def repeated(report: SplitReport) -> Iterator[Finding]:
    """Yield videos that are more than once in a split, as links or copies."""
    records = report.dataset.records
    first: dict[tuple[str, int, int | None, Images | None], int] = {}
    for i, (record, video) in enumerate(zip(records, report.videos, strict=True)):
        before = first.setdefault((video.same, record.start, record.end, record.images), i)
        if before != i and video.kind != MISSING:
            other = "" if records[before].label == record.label else " with another label"
            text = f"the same video as {records[before].path} ({report.where(before)}){other}"
            yield Finding(report.name, record.path, report.where(i), TWICE, text)


def leaks(reports: Sequence[SplitReport]) -> Iterator[Finding]:
    """Yield videos to evaluate on that are for training as well."""
    training = next((report for report in reports if report.name == "train"), None)
    if training is None:
        return
    for report in reports:
        for i, other in shared(report, training) if report is not training else ():
            text = f"is for training as well ({training.where(other)})"
            path = report.dataset.records[i].path
            yield Finding(report.name, path, report.where(i), LEAK, text)


def shared(report: SplitReport, other: SplitReport) -> Iterator[tuple[int, int]]:
    """Yield which records of a split have frames that are in another one, and in which record."""
    places: dict[str, list[int]] = {}
    for i, video in enumerate(other.videos):
        places.setdefault(video.same, []).append(i)
    theirs = other.dataset.records
    for i, (record, video) in enumerate(zip(report.dataset.records, report.videos, strict=True)):
        for place in places.get(video.same, ()):
            if _overlap(record, theirs[place]):
                yield i, place
                break


def _overlap(one: Record, other: Record) -> bool:
    """Tell whether two records of the same video, or parts of it, have frames in common."""
    ends = [math.inf if record.end is None else record.end for record in (one, other)]
    if one.start >= ends[1] or other.start >= ends[0]:
        return False
    a, b = one.images, other.images
    if a is None or b is None or bool(a.name) != bool(b.name):
        return True
    if a.name and image_name(a.name, b.first) != b.name:  # of another camera, in one folder
        return False
    return a.first < b.first + b.length and b.first < a.first + a.length


def notes(reports: Sequence[SplitReport], cfg: CfgNode) -> Iterator[str]:
    """Say what is worth knowing without being wrong."""
    for report in reports:
        data = report.dataset
        if report.name == "train" and cfg.TRAIN.ENABLE:
            videos = len(data)
            if cfg.DATA.FRACTION < 1:
                videos = len(fraction_of(data.records, cfg))
                yield (
                    f"train: a run takes {videos:,} of the {len(data):,} videos (DATA.FRACTION "
                    f"{cfg.DATA.FRACTION:g}), of which all are looked at here"
                )
            few = too_few_for_a_batch(cfg, videos, *ranks(cfg))
            yield from [f"train: {few}"] if few else []
        for doubt in doubts(data.records, report.num_classes, data.class_names):
            yield f"{report.name}: {doubt}"
        yield from shorter_than_a_clip(report)
        if any(record.start or record.end is not None for record in report.dataset.records):
            yield f"{report.name}: the clean list has whole videos, no start and end frames"
    named = {report.name: report for report in reports}
    both = len(list(shared(named["test"], named["val"]))) if {"val", "test"} <= {*named} else 0
    if both:
        shares = counted(both, "video")
        yield f"val and test share {shares}, as is usual where only one of them is public"
    yield from size_warnings(reports, cfg.TRAIN.DATASET)


def shorter_than_a_clip(report: SplitReport) -> Iterator[str]:
    """Say how many videos are shorter than the span of a clip, whose last frame is repeated."""
    sampler = report.dataset.sampler
    if not isinstance(sampler, RateSampler):
        return  # one that takes frames of the whole video
    span = sampler.num_frames * sampler.sampling_rate / sampler.target_fps
    pairs = zip(report.videos, report.dataset.records, strict=True)
    seconds = [(v.duration, r.path) for v, r in pairs if not v.kind and v.duration]
    short = sorted(pair for pair in seconds if pair[0] < span * (1 - 1e-6))
    if short:
        yield (
            f"{report.name}: {len(short):,} of {len(seconds):,} videos are shorter than a clip of "
            f"{span:.2f} s (DATA.NUM_FRAMES × DATA.SAMPLING_RATE / DATA.TARGET_FPS), so their last "
            f"frame is repeated; the shortest is {short[0][1]}, {short[0][0]:.2f} s"
        )


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
            f"{report.name} has {counted(count, 'video')}, {100 * share:.3g} % of the {size:,} of "
            f"{sizes[size]}: {effect}"
        )


def write_tables(folder: Path, found: Checked) -> None:
    """Write problems.csv, and classes.csv, the videos of each class, to a folder that is there."""
    write_csv(folder / PROBLEMS, [Finding._fields, *found.problems])
    first = found.reports[0]
    names = first.dataset.class_names or [""] * first.num_classes
    counts = [report.class_counts.tolist() for report in found.reports]
    classes = zip(range(len(names)), names, *counts, strict=True)
    header = ("label", "name", *(report.name for report in found.reports))
    write_csv(folder / CLASSES, [header, *classes])


def write_clean_list(folder: Path, report: SplitReport, cfg: CfgNode) -> tuple[Path, int]:
    """Write a split's list without files that are missing or broken; return it and its length.

    It is a list of frames where the split's is one: a row has no form for images by their names.
    """
    pairs = zip(report.dataset.records, report.videos, strict=True)
    rows = [
        record._replace(path=list_path(record.path, cfg.DATA.PATH_PREFIX))
        for record, video in pairs
        if not video.kind
    ]
    path = folder / f"{report.name}.csv"
    if any(row.images and row.images.name for row in rows):
        write_frame_list(path, rows)
    else:
        write_list(path, rows, cfg.DATA.PATH_LABEL_SEPARATOR, cfg.DATA.MULTI_LABEL)
    return path, len(rows)
