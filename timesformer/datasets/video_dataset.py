"""A data set of videos: records in, clips of pixels out, for training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from timesformer.clips.sampling import ClipPosition, ClipSampler, ViewGrid
from timesformer.clips.training import TrainCut, TrainTransform
from timesformer.clips.transform import EvalTransform, Normalize
from timesformer.config.multigrid import Grid
from timesformer.datasets.lists.records import Record
from timesformer.datasets.video.decode import Clips
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.requests import Cut
from timesformer.utils.errors import VideoError
from timesformer.utils.retry import is_transient
from timesformer.utils.rng import keyed_rng

Item = tuple[torch.Tensor, "int | torch.Tensor", int, dict[str, Any]]
REPLACEMENTS = 10  # videos drawn for one that can't be read; that many bad ones aren't chance


class Problem(NamedTuple):
    """A video that couldn't be read, or is damaged.

    Attributes:
        record: index of the video.
        path: the file.
        where: its place in a list, or "".
        reason: what is wrong with it.
        treatment: what was done about it: REPLACED, FAILED or USED.
    """

    record: int
    path: str
    where: str
    reason: str
    treatment: str


REPLACED = "replaced by another video"
FAILED = "counted as wrong"
USED = "used as decoded"


class VideoDataset(Dataset):
    """Videos with labels. An item is `(inputs, label, index, meta)`.

    `dataset[index]` is epoch 0, `dataset[(index, epoch)]` another one, `dataset[(index, epoch, n)]`
    the clip of a video that has come n times before in its epoch, and a fourth number is that of a
    grid: the same clip with fewer frames or pixels. Inputs are pixel values 0..255,
    RGB; `dataset.normalize` makes of them what a model takes. For training they are a random uint8
    clip (3, T, H, W) that depends on (seed, epoch, index, n, grid) alone. For evaluation they
    are every view of the video, float (V, 3, T, H, W), from one pass over its file, numbered as
    `views` says; validation has one view and drops V. The label is an integer, or a vector (K,) of
    zeros and ones where videos have several labels. meta has "view", a LongTensor, and "problems".

    Attributes:
        records: the videos, in the order of `index`.
        class_names: in label order, or ().
        normalize: what the model expects of its input.
        num_views: views of a video, V.
        sampling: how the sampler chooses frames, one of `preprocessing.SAMPLINGS`.
    """

    sampling: ClassVar[str] = "rate"

    def __init__(
        self,
        records: Sequence[Record],
        sampler: ClipSampler,
        transform: TrainTransform | EvalTransform,
        mode: str,
        *,
        views: ViewGrid | None = None,
        class_names: tuple[str, ...] = (),
        normalize: Normalize | None = None,
        seed: int = 0,
        num_samples: int = 1,
        num_classes: int = 0,
        grids: Sequence[Grid] = (),
        flip_labels: Mapping[int, int] | None = None,
        reader: VideoReader | None = None,
    ) -> None:
        """Make a data set.

        Args:
            records: the videos.
            sampler: chooses frames.
            transform: makes clips of frames; a TrainTransform makes the set a random one.
            mode: train, val or test.
            views: the views of a test video; one centred clip when None.
            class_names: in label order, or ().
            normalize: what the model expects of its input; pixels in [0, 1] when None.
            seed: of the random clips.
            num_samples: random clips made of one pass over a training video.
            num_classes: K, for records with several labels.
            grids: of training clips; 0 is the full one, of this sampler and transform.
            flip_labels: label of the mirrored video, for labels that a mirror changes.
            reader: reads files; by PyAV when None.
        """
        if (mode == "train") != isinstance(transform, TrainTransform):
            raise ValueError(f"{type(transform).__name__} is not for mode {mode!r}")
        self.records = records
        self.sampler = sampler
        self.transform = transform
        self.mode = mode
        self.views = views or ViewGrid()
        self.class_names = class_names
        self.normalize = normalize or Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.seed = seed
        self.num_samples = num_samples
        self.num_classes = num_classes
        self.grids = grids
        self.flip_labels = flip_labels or {}
        self.reader = reader or VideoReader()
        self._unreadable: set[int] = set()  # found by this process; they aren't tried again

    @property
    def num_views(self) -> int:
        """Views of a video."""
        return self.views.num_views

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, ...]) -> Item:
        """Read one video; of several training clips, the first.

        Raises:
            VideoError: its file can't be read.
        """
        index, *when = key if isinstance(key, tuple) else (int(key),)
        if self.mode != "train":
            return self._views(index)
        return self._samples(index, self._generators(index, *when[:2]), *when[1:])[0]

    def __getitems__(
        self, keys: Sequence[int | tuple[int, ...]]
    ) -> list[Item | Problem | VideoError]:
        """Read a batch for a DataLoader, `num_samples` items for each training video.

        A training video that can't be read is replaced by another one, chosen by (seed, epoch,
        index) alone; an evaluation video comes back as a `Problem`. A VideoError is returned as a
        value, and only when no replacement can be read either: raised in a worker it would reach
        the main process as a traceback of the worker.
        """
        items: list[Item | Problem | VideoError] = []
        for key in keys:
            index, *when = key if isinstance(key, tuple) else (int(key),)
            if self.mode == "train":
                items += self._samples_or_replacement(index, *when)
                continue
            try:
                items.append(self._views(index))
            except VideoError as error:
                items.append(self._problem(index, error.reason, FAILED))
        return items

    def _views(self, index: int) -> Item:
        """All views of a video."""
        assert isinstance(self.transform, EvalTransform)
        record = self.records[index]
        requests = [(view, None) for view in self.views.clips]
        clips = self._read(record, requests, [self.transform.frame] * len(requests))
        inputs = torch.cat([self.transform.crops(images) for images in clips.frames])
        meta = {"view": torch.arange(self.num_views), "problems": self._damage(index, clips)}
        if self.mode == "val":
            inputs, meta["view"] = inputs[0], torch.tensor(0)
        return inputs, self.target(record.label), index, meta

    def _samples(
        self, index: int, rngs: Sequence[np.random.Generator], before: int = 0, grid: int = 0
    ) -> list[Item]:
        """Random clips of a video, one for each generator, after `before` times so many."""
        assert isinstance(self.transform, TrainTransform)
        record, transform, every = self.records[index], self.transform, 1
        if grid:
            every, transform = self.grids[grid].every, transform.of_side(self.grids[grid].side)
        cuts = [TrainCut(transform, rng) for rng in rngs]
        clips = self._read(record, [(None, rng) for rng in rngs], cuts, every)
        items: list[Item] = []
        for i, (images, cut) in enumerate(zip(clips.frames, cuts, strict=True)):
            inputs, label = cut.clip(images), record.label
            if cut.mirrored and isinstance(label, int):
                label = self.flip_labels.get(label, label)
            problems = [] if i else self._damage(index, clips)
            view = torch.tensor(before * len(rngs) + i)
            meta = {"view": view, "problems": problems}
            items.append((inputs, self.target(label), index, meta))
        return items

    def _samples_or_replacement(
        self, index: int, epoch: int = 0, before: int = 0, grid: int = 0
    ) -> list[Item] | list[VideoError]:
        problems, first_error = [], None
        for attempt in range(1 + REPLACEMENTS):
            rngs = self._generators(index, epoch, before, attempt)
            chosen = int(rngs[0].integers(len(self))) if attempt else index
            if chosen in self._unreadable:
                continue
            try:
                items = self._samples(chosen, rngs, before, grid)
            except VideoError as error:
                first_error = first_error or error
                if not is_transient(error):
                    self._unreadable.add(chosen)
                problems.append(self._problem(chosen, error.reason, REPLACED))
                continue
            items[0][3]["problems"] += problems
            return items
        path = first_error.path if first_error else self.records[index].path
        reason = first_error.reason if first_error else "can't be read"
        return [
            VideoError(
                path,
                f"{reason}; nor could any of {REPLACEMENTS} videos drawn in its place: check "
                "DATA.PATH_PREFIX, and the files with `timesformer check-data`",
            )
        ]

    def _generators(
        self, index: int, epoch: int = 0, before: int = 0, attempt: int = 0
    ) -> list[np.random.Generator]:
        """One generator a clip: each a function of (seed, epoch, index, clip, attempt) alone.

        A video that came before in its epoch has had the first clips.
        """
        clips = range(before * self.num_samples, (before + 1) * self.num_samples)
        keys = [(i, attempt) if attempt else (i,) if i else () for i in clips]
        return [keyed_rng("clip", self.seed, epoch, index, *key) for key in keys]

    def _read(
        self,
        record: Record,
        requests: Sequence[tuple[tuple[int, int] | None, np.random.Generator | None]],
        cuts: Sequence[Cut],
        every: int = 1,
    ) -> Clips:
        def place(frames: int, fps: float) -> list[ClipPosition]:
            placed = place_whole(frames, fps)
            return placed if every == 1 else [position.thinned(every) for position in placed]

        def place_whole(frames: int, fps: float) -> list[ClipPosition]:
            if not record.start and record.end is None:
                return [self.sampler.place(frames, fps, view, rng) for view, rng in requests]
            end = frames if record.end is None else min(record.end, frames)
            start = min(record.start, end - 1)
            return [
                self.sampler.place(end - start, fps, view, rng).within(start, end)
                for view, rng in requests
            ]

        return self.reader(record.path, place, cuts, record.images)

    def target(self, label: int | tuple[int, ...]) -> int | torch.Tensor:
        """Return a label as in a batch: itself, or for several a vector (K,) of zeros and ones."""
        if isinstance(label, int):
            return label
        target = torch.zeros(self.num_classes)
        target[list(label)] = 1.0
        return target

    def _damage(self, index: int, clips: Clips) -> list[Problem]:
        return [self._problem(index, clips.damage, USED)] if clips.damage else []

    def _problem(self, index: int, reason: str, treatment: str) -> Problem:
        where = getattr(self.records, "where", lambda _: "")(index)
        return Problem(index, self.records[index].path, where, reason, treatment)
