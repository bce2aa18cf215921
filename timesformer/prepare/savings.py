"""What copies by `prepare-data` would save, measured on a few files of a data set."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from timesformer.clips.transform import one_thread
from timesformer.datasets.lists.records import Record
from timesformer.datasets.video.frame_folder import list_frames
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.copies import source_of
from timesformer.prepare.inspect import SplitReport, VideoReport
from timesformer.prepare.transcode import TranscodeSettings, transcode
from timesformer.utils.errors import VideoError

ROUNDS = 3  # of reading every file in turns
PATIENCE = 30.0  # seconds of making copies after which no further one is made
LONGEST = 600.0  # seconds of video: making a copy of a longer one takes too long for a check


class Savings(NamedTuple):
    """What copies would save.

    Attributes:
        sampled: files that it was measured on.
        videos: of all splits, each once.
        clip_ms: to read a training clip as the files are, in one process; the median of rounds. Of
            a test video's views, where only tests are checked.
        copy_ms: that of copies.
        disk: bytes of all videos; of folders of images an estimate.
        copy_disk: bytes of all copies, an estimate.
        hours: that one core takes to make them, an estimate.
    """

    sampled: int
    videos: int
    clip_ms: float
    copy_ms: float
    disk: float
    copy_disk: float
    hours: float


class _Copy(NamedTuple):
    record: Record
    copied: Record
    seconds: float  # of video
    making: float  # seconds
    bytes: int
    copied_bytes: int


def measure(
    reports: Sequence[SplitReport], count: int, settings: TranscodeSettings
) -> Savings | None:
    """Make copies of a few files in a temporary folder, and read clips of both in turns.

    Args:
        reports: the data set's splits; files of the training videos are taken if they are there.
        count: files, at most.
        settings: of the copies.

    Returns:
        What they save; None where no file can be copied: those of shards, or all too long.

    Raises:
        UserError: the temporary folder can't be written to.
    """
    split = next((report for report in reports if report.name == "train"), reports[0])
    if split.dataset.reader.shards is not None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        copies = list(_make(_choose(split, count), Path(folder), settings))
        if not copies:
            return None
        before, after = _read(split.dataset, copies)
    videos = {key: v for report in reports for key, (_, v) in _readable(report).items()}.values()
    seconds = sum(video.duration for video in videos)
    share = seconds / sum(c.seconds for c in copies)  # of the time of all videos to that of these
    known = all(video.size for video in videos)
    return Savings(
        sampled=len(copies),
        videos=len(videos),
        clip_ms=before,
        copy_ms=after,
        disk=sum(v.size for v in videos) if known else share * sum(c.bytes for c in copies),
        copy_disk=share * sum(c.copied_bytes for c in copies),
        hours=share * sum(c.making for c in copies) / 3600,
    )


def _readable(split: SplitReport) -> dict[object, tuple[Record, VideoReport]]:
    """Return what would be copied, each file, and each choice of a folder's images, once."""
    pairs = zip(split.dataset.records, split.videos, strict=True)
    return {(v.real, source_of(r).images): (r, v) for r, v in pairs if not v.kind}


def _choose(split: SplitReport, count: int) -> list[tuple[Record, VideoReport]]:
    """Return files from all over the list, the shortest first."""
    found = [pair for pair in _readable(split).values() if 0 < pair[1].duration <= LONGEST]
    chosen = [found[i * len(found) // count] for i in range(min(count, len(found)))]
    return sorted(chosen, key=lambda pair: pair[1].duration)


def _make(
    chosen: Sequence[tuple[Record, VideoReport]], folder: Path, settings: TranscodeSettings
) -> Iterator[_Copy]:
    spent = 0.0
    for number, (record, video) in enumerate(chosen):
        target, source = folder / f"{number}.mp4", source_of(record)
        start = time.perf_counter()
        try:
            transcode(source.path, target, settings, source.images)
        except VideoError:
            continue  # `prepare-data` lists it
        making = time.perf_counter() - start
        size = video.size or _folder_size(record)
        copied = record._replace(path=str(target), images=None)
        yield _Copy(record, copied, video.duration, making, size, target.stat().st_size)
        spent += making
        if spent > PATIENCE:
            return


def _folder_size(record: Record) -> int:
    folder = Path(record.path)
    return sum((folder / name).stat().st_size for name in list_frames(record.path, record.images))


def _read(dataset: VideoDataset, copies: Sequence[_Copy]) -> tuple[float, float]:
    """Return the milliseconds of a clip as the files are, and of copies."""
    sets = [copy.copy(dataset), copy.copy(dataset)]
    sets[0].records = [c.record for c in copies]
    sets[1].records = [c.copied for c in copies]
    totals: list[list[float]] = [[], []]
    with one_thread():
        for turn in range(ROUNDS + 1):  # the first warms up
            sums = [0.0, 0.0]
            for index in range(len(copies)):
                for which, data in enumerate(sets):
                    start = time.perf_counter()
                    _ = data[(index, turn)] if data.mode == "train" else data[index]
                    sums[which] += time.perf_counter() - start
            for total, seconds in zip(totals, sums, strict=True):
                total.append(seconds)
    clips = len(copies) * (dataset.num_samples if dataset.mode == "train" else 1)
    before, after = (1e3 * statistics.median(total[1:]) / clips for total in totals)
    return before, after
