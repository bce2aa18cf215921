"""Features of many videos: in parts that are written once, by as many runs as there are machines.

    from timesformer.inference.extract import extract
    from timesformer.inference.settings import Settings
    extract(timesformer.load("runs/a"), videos, Path("features"), Settings(level="clip"))

What a part holds depends on the list and the settings alone (see `passes`), so a run that was
killed goes on, and shares of several runs add up, to the same bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from timesformer.datasets.lists.records import Record, Records
from timesformer.datasets.loader import VideoLoader, loader_of
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.workers import worker_errors
from timesformer.inference.encoder import Encoder, features_of
from timesformer.inference.features import (
    FEATURES,
    FORMATS,
    PARTS,
    VideoFeatures,
    video_id,
    write_part,
)
from timesformer.inference.given import ShortNotice, records_of
from timesformer.inference.manifest import MANIFEST_CLAIM, agree, description
from timesformer.inference.passes import DecodedPass
from timesformer.inference.predictor import Predictor
from timesformer.inference.settings import Settings, look_of, part_of, stored
from timesformer.inference.work import Work, write_failed
from timesformer.models.base import TakesClips
from timesformer.utils.claims import Claims
from timesformer.utils.errors import UserError
from timesformer.utils.files import make_folder
from timesformer.utils.logging import get_logger, progress
from timesformer.utils.text import counted

logger = get_logger(__name__)

PathLike = str | os.PathLike[str]
CLAIMS = ".claims"


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        videos: in its share of the list.
        done: those of them that it did.
        there: those that were there before.
        elsewhere: those that another run is doing.
        failed: those that couldn't be read, of the ones done and there.
        seconds: that it took.
        width: D; 0 if nothing was done.
    """

    videos: int
    done: int
    there: int
    elsewhere: int
    failed: int
    seconds: float
    width: int


def extract(
    model: Predictor | TakesClips,
    videos: Iterable[PathLike] | Records,
    folder: Path,
    settings: Settings | None = None,
    *,
    share: tuple[int, int] = (1, 1),
    workers: int = 0,
    reader: VideoReader | None = None,
    source: str = "",
) -> Summary:
    """Write the features of videos into a folder; those that are there already stay.

    Args:
        model: as `load` gives it.
        videos: paths, in the order that every run of this folder gives them; or records of whole
            videos.
        folder: where to; it is made.
        settings: what is extracted.
        share: (i, n), the i-th of n shares of the parts, from 1. Runs of the same or other shares
            may work at once: each part is made by one of them.
        workers: processes that decode; 0: this one.
        reader: reads files; by PyAV when None.
        source: what the model was loaded from, for the manifest.

    Raises:
        ValueError: there is no such share.
        UserError: the folder has features of something else; two videos would have one file; or
            what the settings ask for the model doesn't have.
        TrainingError: a process that decodes has ended.
    """
    start, settings = time.perf_counter(), settings or Settings()
    if not 1 <= share[0] <= share[1]:
        raise ValueError(f"share {share}: (i, n), from (1, n) to (n, n)")
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    records = videos if isinstance(videos, Records) else records_of(videos)
    encoder = Encoder(predictor, settings.level, settings.layer, settings.batch_size)
    look = look_of(predictor, settings)
    settings = replace(settings, part=part_of(settings, look))
    _check_format(settings, records)
    for place in (folder, folder / PARTS, *([folder / FEATURES] * (settings.file_format == "npy"))):
        make_folder(place)
    dataset = look.dataset(predictor.model, records, reader)
    rate = dataset.reader.frames_fps
    asked = description(predictor, settings, look, encoder.layer, records, rate)
    with Claims(folder / CLAIMS) as claims:
        threads = agree(folder, asked, claims, source)
        if predictor.device.type == "cpu" and threads != torch.get_num_threads():
            told = counted(threads, "thread")
            logger.warning("%s: computed with %s, as it was begun: they change bits", folder, told)
        work = Work(folder, settings, look, dataset, claims, share)
        loader = loader_of(dataset, work.passes(), workers, _only)
        with _threads(threads if predictor.device.type == "cpu" else 0), worker_errors(loader):
            width = _fill(encoder, work, loader)
        with claims.holding(MANIFEST_CLAIM):  # of runs that end at once, the last one lists all
            there = work.there()
            failed = write_failed(work, there)
    done = work.videos(work.made)
    return Summary(
        videos=work.videos(work.numbers),
        done=done,
        there=work.videos(there) - done,
        elsewhere=work.videos(work.numbers) - work.videos(there),
        failed=failed,
        seconds=time.perf_counter() - start,
        width=width,
    )


def _check_format(settings: Settings, records: Records) -> None:
    if settings.file_format not in FORMATS:
        raise UserError(f"format {settings.file_format!r:.60}: one of {', '.join(FORMATS)}")
    if settings.file_format == "parquet":
        import pyarrow.parquet  # noqa: F401  (that it isn't there is told now)
    if settings.file_format != "npy":
        return
    names: dict[str, Record] = {}
    for record in records:
        other = names.setdefault(video_id(record.path), record)
        if (other.path, other.images) != (record.path, record.images):
            both = other.path if other.path == record.path else f"{other.path} and {record.path}"
            raise UserError(
                f"{both} would {'twice' if both == other.path else 'both'} be "
                f"{video_id(record.path)}.npy: choose another format"
            )


def _fill(encoder: Encoder, work: Work, loader: VideoLoader) -> int:
    """Write the parts of the work that are missing; return the width of their features, or 0."""
    width, settings = 0, work.settings
    missing = work.videos(work.numbers) - work.videos(work.there())
    shown = progress(_videos(encoder, work, loader), "extract", missing)
    for part, rows in groupby(shown, key=lambda found: found[0]):
        kept = [stored(row, settings.fp16) for _, row in rows]
        write_part(work.folder, part, kept, settings.file_format)
        work.claims.release(part + 1)
        width = next((r.features.shape[-1] for r in kept if not r.error), width)
    return width


def _videos(
    encoder: Encoder, work: Work, loader: VideoLoader
) -> Iterator[tuple[int, VideoFeatures]]:
    """Yield (part, features) of each video of the work, in the order of the list."""
    notice = ShortNotice()
    pieces: list[VideoFeatures] = []
    dataset, look = work.dataset, work.look
    for decoded in loader:
        assert isinstance(decoded, DecodedPass)
        crops, sliding = look.testing.num_crops, look.windows is not None
        for read, features, times in features_of(encoder, decoded, crops, sliding):
            index = read.piece.index
            path = dataset.records[index].path
            if read.short:
                notice(path, read.short)
            pieces.append(VideoFeatures(index, path, features, times, read.damage, read.error))
            if read.piece.first + read.piece.count == read.piece.total:
                yield decoded.part, whole(pieces)
                pieces = []


def _only(items: list[DecodedPass]) -> DecodedPass:
    [item] = items
    return item


def whole(pieces: list[VideoFeatures]) -> VideoFeatures:
    """Join the pieces of a video; if one can't be read, it can't."""
    if bad := next((piece for piece in pieces if piece.error), None):
        return bad
    return replace(
        pieces[0],
        features=np.concatenate([piece.features for piece in pieces]),
        times=np.concatenate([piece.times for piece in pieces]),
        damage=next((piece.damage for piece in pieces if piece.damage), ""),
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with as many threads as all of a folder was: they change the last bits; 0: as is."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
