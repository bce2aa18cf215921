"""Forward passes that are the same wherever a run begins: which clips of which videos share one.

The last bits of a model's output depend on how many clips it gets at once. So that features don't
depend on where a run was broken, or how many runs share a list, a pass is made of the places of
videos in the list, never of what happened to be left over: a pass holds all clips of a few
neighbours, or up to so many windows of one video. Videos that can't be read leave their pass
smaller in every run alike.

Letters: C clips of a pass, S crops of each, T frames, V videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timesformer.clips.transform import EvalTransform
from timesformer.clips.windows import WindowSampler, seconds_of
from timesformer.datasets.lists.records import Record
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import USED
from timesformer.inference.given import SHORT, GivenVideos
from timesformer.models.base import TakesClips, Testing
from timesformer.utils.errors import VideoError


@dataclass(frozen=True)
class Piece:
    """Clips of one video: `count` of its `total`, from clip `first` on."""

    index: int
    first: int
    count: int
    total: int


class Pass(NamedTuple):
    """What is decoded at once: clips of some videos of a file of results."""

    part: int
    pieces: tuple[Piece, ...]


class ReadPiece(NamedTuple):
    """What became of a piece.

    Attributes:
        piece: which.
        times: seconds at which its frames are shown (count, T); (0, 0) where it can't be read.
        middles: seconds in the middle of its clips (count,).
        damage: what is wrong with the file although it could be read, or "".
        error: why it couldn't be, or "".
        short: what the video is too short for, or "".
    """

    piece: Piece
    times: NDArray[np.float64]
    middles: NDArray[np.float64]
    damage: str = ""
    error: str = ""
    short: str = ""


class DecodedPass(NamedTuple):
    """A pass with its pixels (C·S, 3, T, H, W), those of a clip's crops together; C may be 0."""

    part: int
    pieces: list[ReadPiece]
    pixels: Tensor


@dataclass(frozen=True)
class Look:
    """How videos are looked at.

    Attributes:
        testing: the clips and crops of a video; of windows the crops alone.
        windows: clips one after the other instead of the test's; None for those.
        batch_size: the most clips, crops counted, that the model gets at once.
    """

    testing: Testing
    windows: WindowSampler | None
    batch_size: int

    @property
    def group(self) -> int:
        """Neighbours in the list whose clips share a pass."""
        views = self.testing.num_clips * self.testing.num_crops
        return 1 if self.windows else max(1, self.batch_size // views)

    def passes(
        self, part: int, videos: range, length: Callable[[int], tuple[int, float]]
    ) -> Iterator[Pass]:
        """Yield the passes of neighbours in a list; `length` is asked for frames and fps.

        A video whose length can't be read is asked for one clip, which then says why.
        """
        if self.windows is None:
            clips = self.testing.num_clips
            for start in range(0, len(videos), self.group):
                group = videos[start : start + self.group]
                yield Pass(part, tuple(Piece(index, 0, clips, clips) for index in group))
            return
        most = max(1, self.batch_size // self.testing.num_crops)
        for index in videos:
            try:
                total = self.windows.count(*length(index))
            except VideoError:
                total = 1
            for first in range(0, total, most):
                piece = Piece(index, first, min(most, total - first), total)
                yield Pass(part, (piece,))

    def dataset(
        self, model: TakesClips, records: Sequence[Record], reader: VideoReader | None = None
    ) -> PassDataset:
        """Return what decodes passes for a model, or for what is said of its input."""
        return PassDataset(model, self, records, reader)


class PassDataset(GivenVideos):
    """Videos by passes: `dataset.__getitems__([a Pass])` is [a DecodedPass]."""

    transform: EvalTransform

    def __init__(
        self,
        model: TakesClips,
        look: Look,
        records: Sequence[Record],
        reader: VideoReader | None = None,
    ) -> None:
        super().__init__(model, look.testing, records, reader, look.windows)
        self.look = look

    def length(self, index: int) -> tuple[int, float]:
        """Return a video's frames and frames per second.

        Raises:
            VideoError: it can't be read.
        """
        record = self.records[index]
        return self.reader.length(record.path, record.images)

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        """Decode passes."""
        return [self._decode(key) for key in keys]

    def _decode(self, wanted: Pass) -> DecodedPass:
        read: list[ReadPiece] = []
        pixels: list[Tensor] = []
        for piece in wanted.pieces:
            found, more = self._read_piece(piece)
            read.append(found)
            pixels += more
        return DecodedPass(wanted.part, read, torch.cat(pixels) if pixels else torch.empty(0))

    def _read_piece(self, piece: Piece) -> tuple[ReadPiece, list[Tensor]]:
        requests = [((piece.first + i, piece.total), None) for i in range(piece.count)]
        try:
            clips = self._read(
                self.records[piece.index], requests, [self.transform.frame] * len(requests)
            )
        except VideoError as error:
            return ReadPiece(piece, np.empty((0, 0)), np.empty(0), error=error.reason), []
        times = np.array([seconds_of(*place) for place in self.placed], np.float64)
        middles = times.mean(axis=1)
        if self.look.windows is not None:
            numbers = range(piece.first, piece.first + piece.count)
            middles = np.array([self.look.windows.middle(i) for i in numbers])
        told = {problem.treatment: problem.reason for problem in self._damage(piece.index, clips)}
        found = ReadPiece(piece, times, middles, told.get(USED, ""), short=told.get(SHORT, ""))
        return found, [self.transform.crops(images) for images in clips.frames]
