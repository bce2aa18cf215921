"""Videos that somebody asks about: read as a test reads its own, whatever they are listed in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from timesformer.clips.sampling import ClipPosition, ClipSampler, ViewGrid, sampler_of
from timesformer.datasets.lists.records import Record, Records
from timesformer.datasets.lists.unlabelled import NO_LABEL, read_videos
from timesformer.datasets.video.decode import Clips
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.tree import videos_below
from timesformer.datasets.video_dataset import Problem, VideoDataset
from timesformer.models.base import TakesClips, Testing
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_file, is_folder
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".lst")
UNREAD_SUFFIXES = (".json", ".jsonl")  # annotations, whose videos are known by their IDs
SHORT = "its last frame was repeated"  # a treatment, see `Problem`


class GivenVideos(VideoDataset):
    """The test's views of videos that have no labels.

    Items are those of a test set; a video that is shorter than a clip is a problem, SHORT.
    """

    def __init__(
        self,
        model: TakesClips,
        testing: Testing,
        records: Sequence[Record],
        reader: VideoReader | None = None,
        sampler: ClipSampler | None = None,
    ) -> None:
        """Make a data set.

        Args:
            model: knows its `preprocessing`.
            testing: the views.
            records: the videos; their labels play no part.
            reader: reads files; by PyAV when None.
            sampler: chooses frames; as the model's test does when None.

        Raises:
            ConfigError: nothing says how the model's input is made.
        """
        self._noting = _Noting(sampler or sampler_of(**model.sampling))
        super().__init__(
            records,
            self._noting,
            model.crops(testing.num_crops),
            "test",
            views=ViewGrid(testing.num_clips, testing.num_crops),
            class_names=model.class_names,
            normalize=model.normalize,
            reader=reader,
        )

    @property
    def placed(self) -> list[tuple[ClipPosition, int, float]]:
        """Where the clips of the last video lie, in how many frames, at how many a second."""
        return self._noting.placed

    def _read(self, *args: Any) -> Clips:
        self.placed.clear()
        return super()._read(*args)

    def _damage(self, index: int, clips: Clips) -> list[Problem]:
        short = too_short(*self.placed[-1])
        more = [self._problem(index, short, SHORT)] if short else []
        return [*super()._damage(index, clips), *more]


@dataclass
class _Noting:
    """A sampler that notes where it places clips."""

    sampler: ClipSampler
    placed: list[tuple[ClipPosition, int, float]] = field(default_factory=list)

    def place(
        self,
        length: int,
        fps: float,
        view: tuple[int, int] | None,
        rng: np.random.Generator | None = None,
    ) -> ClipPosition:
        position = self.sampler.place(length, fps, view, rng)
        self.placed.append((position, length, fps))
        return position


def too_short(position: ClipPosition, length: int, fps: float) -> str:
    """Say that a video is shorter than the clip that lies in it; "" if it isn't."""
    if position.timed and length + 1 < position.span:
        return f"{length / fps:.1f} s, and a clip spans {position.span / fps:.1f} s"
    if not position.timed and length < len(position.offsets):
        return f"{length} frames, and a clip has {len(position.offsets)}"
    return ""


class ShortNotice:
    """Says once that videos are shorter than a clip."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, path: str, reason: str) -> None:
        """Log the first video of which this is said, and why."""
        if not self._said:
            self._said = True
            logger.warning("%s: %s: %s (said once)", path, reason, SHORT)


def records_of(paths: Iterable[str | os.PathLike[str]]) -> Records:
    """Return records of videos, without labels.

    Raises:
        UserError: there is none.
    """
    records = Records()
    for path in paths:
        records.append(os.fspath(path), NO_LABEL)
    return _some(records)


def find(words: Sequence[str | Path], output: Path | None = None) -> Records:
    """Return the videos that the words of a command line mean, in their order, each once.

    Args:
        words: each a video; a folder of images, which is one video; a folder of videos, with those
            in its folders; or a list (`datasets.lists.unlabelled`).
        output: a folder whose videos aren't meant.

    Raises:
        UserError: there is no such file or folder, or nothing in it.
        AnnotationError: a list can't be read.
    """
    found: dict[Record, None] = {}
    for word in map(Path, words):
        if is_folder(word):
            videos = [*videos_below(word, output, frames=True)]
            if not videos:
                raise UserError(f"{word}: there are no videos in it, nor folders of images")
            found |= dict.fromkeys(Record(video, NO_LABEL) for video in videos)
        elif not os.path.lexists(word):
            raise UserError(f"{word}: there is no such video, folder or list")
        elif is_file(word) and word.suffix.lower() in LIST_SUFFIXES:
            found |= dict.fromkeys(read_videos(word))
        elif is_file(word) and word.suffix.lower() in UNREAD_SUFFIXES:
            raise UserError(
                f"{word}: doesn't say where its videos are: name their folder, or a list with a "
                "path a line"
            )
        else:
            found[Record(str(word), NO_LABEL)] = None
    records = Records()
    for record in found:
        records.append(record.path, NO_LABEL, images=record.images)
    return _some(records)


def _some(records: Records) -> Records:
    if not records:
        raise UserError("there are no videos to look at")
    return records
