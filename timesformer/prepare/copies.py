"""Copies of many videos that load fast: which, where, how they were made, and lists of them.

`transcode` makes one of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from timesformer.config.node import CfgNode
from timesformer.datasets.catalogue.kinetics import Kinetics
from timesformer.datasets.catalogue.synthetic import Synthetic
from timesformer.datasets.catalogue.video_folder import VideoFolder
from timesformer.datasets.lists.records import Images, Record, Records
from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.datasets.lists.written import write_frame_list, write_list
from timesformer.datasets.video.frame_folder import list_frames
from timesformer.datasets.video.tree import videos_below
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.claim import claim
from timesformer.prepare.transcode import SUFFIX, TranscodeSettings, transcode
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import (
    is_folder,
    is_inside,
    write_csv,
    write_text,
)
from timesformer.utils.processes import CRASHED, in_processes

MANIFEST = "prepare.json"  # in the output: how its videos were made
NAMES = "classes.txt"  # there, too
FORMAT = 2  # goes up when the same settings make other videos, or other names


class Source(NamedTuple):
    """A video to prepare; of a folder these images, None for all."""

    path: str
    images: Images | None = None


class Job(NamedTuple):
    """A source, and the file that it becomes."""

    source: str
    target: str
    images: Images | None = None


class Outcome(NamedTuple):
    """What became of it."""

    failure: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class Prepare:
    """The work on one video; picklable, for worker processes."""

    settings: TranscodeSettings

    def __call__(self, job: Job) -> Outcome:
        """Transcode; an unreadable source is an outcome, an unwritable target an error."""
        source = _mtime(job.source)  # now: it may be replaced meanwhile
        try:
            transcode(job.source, job.target, self.settings, job.images)
        except VideoError as error:
            return Outcome(error.reason)
        if source is not None:
            with suppress(OSError):  # a file system where that can't be makes copies anew
                os.utime(job.target, ns=(source, source))
        return Outcome()

    def crashed(self, job: Job) -> Outcome:
        """Return the outcome of a source that took its process down with it."""
        return Outcome(CRASHED)


def source_of(record: Record) -> Source:
    """Return what to prepare of a record; a list's number of frames says nothing of a file."""
    of_folder = record.images is not None and is_folder(record.path)
    return Source(record.path, record.images if of_folder else None)


def find_base(cfg: CfgNode, datasets: Mapping[str, VideoDataset]) -> tuple[Path, list[Source]]:
    """Find the folder whose tree the output repeats, and the videos, each of them once.

    Raises:
        UserError: they are on several drives.
    """
    records = (record for dataset in datasets.values() for record in dataset.records)
    sources = list(dict.fromkeys(map(source_of, records)))
    paths = dict.fromkeys(source.path for source in sources)
    full = [os.path.abspath(path) for path in paths]  # noqa: PTH100  (links stay what they are)
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in full])  # noqa: PTH120
    except ValueError:
        raise UserError("the videos are on several drives: prepare those of each drive") from None
    for folder in (cfg.DATA.PATH_PREFIX, cfg.DATA.PATH_TO_DATA_DIR, "."):
        base = os.path.abspath(folder or ".")  # noqa: PTH100
        if folder and is_inside(base, common):
            return Path(base), sources
    return Path(common), sources


def find_videos(folder: Path, output: Path) -> list[Source]:
    """List the videos of a tree, without those that were put there by this module."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    found = [Source(path) for path in videos_below(folder, output)]
    if not found:
        raise UserError(f"{folder}: there are no videos in it")
    return found


def plan(sources: Iterable[Source], base: Path, output: Path) -> list[Job]:
    """Give each source its target: its own name, or where several would have the same, a.avi.mp4.

    Images of a folder are in the name, v.11-20.mp4, so that no others are ever taken for them.

    Raises:
        UserError: two sources have the same one all the same, or a target is a source.
    """
    sources = list(sources)
    places = {source.path: Path(os.path.relpath(source.path, base)) for source in sources}
    short = {s: p.with_suffix("") if _is_video(p) else p for s, p in places.items()}
    count = Counter(short.values())
    jobs: dict[str, Job] = {}
    for source, images in sources:
        place = places[source]
        name = short[source].name if count[short[source]] == 1 else place.name
        name += _name_of(source, images)
        target = output / place.with_name(name + SUFFIX)
        job = Job(source, str(target), images)
        other = jobs.setdefault(job.target, job)
        if other is not job:
            raise UserError(
                f"{other.source} and {source} would both become {target}: rename one of them"
            )
        if os.path.abspath(source) == os.path.abspath(target):  # noqa: PTH100
            raise UserError(f"{source} would be overwritten: choose another --output")
    return list(jobs.values())


def _name_of(folder: str, images: Images | None) -> str:
    """Return what the name of a copy says of its images: places from 1, or as they are named."""
    if images is None or (images.name and _are_all(folder, images)):
        return ""  # frame lists name all as a rule, and JSON annotations know the folder's name
    if images.name:
        return f".{images.name}-{images.first + images.length - 1}"
    return f".{images.first + 1}-{images.first + images.length}"


def _are_all(folder: str, images: Images) -> bool:
    try:
        return list_frames(folder, images) == list_frames(folder)
    except VideoError:
        return False  # told when it is to be prepared


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def make_copies(
    jobs: Sequence[Job], output: Path, settings: TranscodeSettings, workers: int = 0
) -> dict[Job, Outcome]:
    """Make the copies that aren't there yet, and leave no half ones.

    Args:
        jobs: what `plan` returned.
        output: the folder they are in; it remembers the settings.
        settings: how to make them.
        workers: number of processes; 0: none but this one.

    Returns:
        An outcome for every job, in their order.

    Raises:
        UserError: the folder has something else in it, or can't be written.
    """
    claim(output / MANIFEST, {"format": FORMAT, **asdict(settings)})
    try:
        return _run(jobs, settings, workers)
    finally:
        sweep(output)


def sweep(output: Path) -> None:
    """Remove what an interrupted run left half done."""
    for partial in output.rglob(f".*{SUFFIX}.*.tmp"):
        partial.unlink(missing_ok=True)


def _run(jobs: Sequence[Job], settings: TranscodeSettings, workers: int) -> dict[Job, Outcome]:
    """Prepare what isn't prepared yet; return an outcome for every job, in their order."""
    outcomes = {job: Outcome(skipped=True) for job in jobs}
    todo = [job for job in jobs if not is_done(job)]
    for folder in {Path(job.target).parent for job in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    prepare = Prepare(settings)
    with (
        tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="video", disable=None) as bar,
        closing(in_processes(prepare, todo, workers, prepare.crashed)) as results,
    ):
        for job, outcome in results:
            outcomes[job] = outcome
            bar.update()
    return outcomes


def is_done(job: Job) -> bool:
    """Tell whether the target is there, and of the same time as its source if that still is.

    A source may be replaced by an older file, whose time was kept.
    """
    if not Path(job.target).is_file():
        return False
    source, target = _mtime(job.source), _mtime(job.target)
    if source is None or target is None:
        return source is None
    # Some file systems keep whole microseconds, or every other second.
    step = 2 * 10**9 if target % 10**9 == 0 else 1000
    return abs(source - target) < step


def _mtime(path: str) -> int | None:
    """Return when a file was written, in nanoseconds; None if it isn't there."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return None


class Summary(NamedTuple):
    """What was done.

    Attributes:
        done: copies that were made.
        skipped: copies that were there.
        failed: (source, reason) of each source that can't be read.
        before: bytes of the sources that have a copy.
        after: bytes of the copies.
    """

    done: int
    skipped: int
    failed: list[tuple[str, str]]
    before: int
    after: int


def summarise(outcomes: Mapping[Job, Outcome]) -> Summary:
    """Count what was done, and measure it."""
    failed = [(job.source, outcome.failure) for job, outcome in outcomes.items() if outcome.failure]
    good = [job for job, outcome in outcomes.items() if not outcome.failure]
    skipped = sum(outcome.skipped for outcome in outcomes.values())
    before = sum(size_of(Path(source)) for source in {job.source for job in good})
    after = sum(size_of(Path(job.target)) for job in good)
    return Summary(len(good) - skipped, skipped, failed, before, after)


def write_failed(path: Path, failed: Sequence[tuple[str, str]]) -> None:
    """Write which sources have no copy, and why; or remove the file if there is none."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    write_csv(path, [("path", "reason"), *failed])


def write_lists(
    output: Path, datasets: Mapping[str, VideoDataset], outcomes: Mapping[Job, Outcome],
    cfg: CfgNode, as_they_are: bool = False,
) -> None:  # fmt: skip
    """Write the splits' lists of the copies that were made, and the class names.

    Where files were taken as they are, folders of frames are still folders of all their images.
    """
    good = {
        Source(job.source, job.images): Path(job.target).relative_to(output).as_posix()
        for job, outcome in outcomes.items()
        if not outcome.failure
    }
    for split, dataset in datasets.items():
        rows = [
            record._replace(path=good[source], images=record.images if as_they_are else None)
            for record in dataset.records
            if (source := Source(record.path) if as_they_are else source_of(record)) in good
        ]
        path, data = output / f"{split}.csv", cfg.DATA
        if any(row.images and row.images.name for row in rows):
            write_frame_list(path, rows)
        else:
            write_list(path, rows, data.PATH_LABEL_SEPARATOR, data.MULTI_LABEL)
        write_names(output / NAMES, dataset.class_names)


def size_of(path: Path) -> int:
    """Return the bytes of a file, of the files in a folder, or 0 if it isn't there."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return path.stat().st_size if path.is_file() else 0


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write class names, a line each, as DATA.CLASS_NAMES reads them."""
    if names:
        write_text(path, "".join(f"{name}\n" for name in names))


def how_to_train(dataset: VideoDataset, output: Path, as_they_are: bool = False) -> str:
    """Say which keys make a recipe use the prepared videos."""
    lists = f"DATA.PATH_TO_DATA_DIR {output}"
    if isinstance(dataset, Synthetic):
        return f"train with {lists}"
    if isinstance(dataset, Kinetics):
        return f"train with {lists} DATA.PATH_PREFIX {output}"
    if isinstance(dataset, VideoFolder):  # by itself it would split anew, as names have changed
        return (
            f"train with TRAIN.DATASET kinetics TEST.DATASET kinetics {lists} "
            f"DATA.PATH_PREFIX {output} DATA.CLASS_NAMES {output / NAMES}"
        )
    source = dataset.records.source if isinstance(dataset.records, Records) else ""
    if source.endswith(".csv") and not as_they_are:
        return f"train with DATA.PATH_PREFIX {output} and .json annotations, not frame lists"
    return f"train with DATA.PATH_PREFIX {output}, annotations as they are"
