"""Videos that somebody asks about: read as a test reads its own, whatever they are listed in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timesformer.clips.sampling import ClipPosition, ClipSampler, ViewGrid, sampler_of
from timesformer.datasets.lists.label_reader import MOST
from timesformer.datasets.lists.records import Record, Records
from timesformer.datasets.lists.row_paths import is_video
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.lists.text_file import read_text
from timesformer.datasets.video.decode import Clips
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.tree import videos_below
from timesformer.datasets.video_dataset import Problem, VideoDataset
from timesformer.models.base import TakesClips, Testing
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_file, is_folder

LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".lst")
SHORT = "its last frame was repeated"  # a treatment, see `Problem`
NO_LABEL = -1
HEADERS = ("path", "video", "file")


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
        self._noticing = _Noticing(sampler or sampler_of(**model.sampling))
        super().__init__(
            records,
            self._noticing,
            model.crops(testing.num_crops),
            "test",
            views=ViewGrid(testing.num_clips, testing.num_crops),
            class_names=model.class_names,
            normalize=model.normalize,
            reader=reader,
        )

    def _damage(self, index: int, clips: Clips) -> list[Problem]:
        short = self._noticing.short
        more = [self._problem(index, short, SHORT)] if short else []
        return [*super()._damage(index, clips), *more]


@dataclass
class _Noticing:
    """A sampler that notices when a video is shorter than the clip that it is asked for.

    Attributes:
        sampler: chooses the frames.
        short: what the last video was too short for, in words, or "".
    """

    sampler: ClipSampler
    short: str = ""

    def place(
        self,
        length: int,
        fps: float,
        view: tuple[int, int] | None,
        rng: np.random.Generator | None = None,
    ) -> ClipPosition:
        position = self.sampler.place(length, fps, view, rng)
        self.short = ""
        if position.timed and length + 1 < position.span:
            self.short = f"{length / fps:.1f} s, and a clip spans {position.span / fps:.1f} s"
        elif not position.timed and length < len(position.offsets):
            self.short = f"{length} frames, and a clip has {len(position.offsets)}"
        return position


def records_of(paths: Iterable[str | os.PathLike[str]]) -> Records:
    """Return records of videos, without labels.

    Raises:
        UserError: there is none.
    """
    records = Records()
    for path in paths:
        records.append(os.fspath(path), NO_LABEL)
    if not records:
        raise UserError("there are no videos to look at")
    return records


def find(words: Sequence[str | Path], output: Path | None = None) -> Records:
    """Return the videos that the words of a command line mean, in their order.

    Args:
        words: each a video; a folder of images, which is one video; a folder of videos, with those
            in its folders; or a list: a text file with a path a line, or in a form that training
            takes (`datasets.lists.rows`), whose labels play no part.
        output: a folder whose videos aren't meant.

    Raises:
        UserError: there is no such file or folder, or nothing in it.
        AnnotationError: a list can't be read.
    """
    found: list[str] = []
    for word in map(Path, words):
        if is_folder(word):
            videos = [*videos_below(word, output, frames=True)]
            if not videos:
                raise UserError(f"{word}: there are no videos in it, nor folders of images")
            found += videos
        elif not os.path.lexists(word):
            raise UserError(f"{word}: there is no such video, folder or list")
        elif is_file(word) and word.suffix.lower() in LIST_SUFFIXES:
            found += _of_list(word)
        else:
            found.append(str(word))
    return records_of(dict.fromkeys(found))


def _of_list(path: Path) -> list[str]:
    """Return the paths of a list; they are relative to the current folder, or else to its own."""
    rows = [row for row in map(str.strip, read_text(path).splitlines()) if row]
    if rows and rows[0].lower() in HEADERS:
        del rows[0]
    here = path.parent
    if rows and all(is_video(r) or os.path.lexists(r) or os.path.lexists(here / r) for r in rows):
        videos = rows
    else:
        videos = [record.path for record in read_list(path, MOST)]
    if not os.path.lexists(videos[0]) and os.path.lexists(here / videos[0]):
        return [str(here / video) for video in videos]
    return videos
