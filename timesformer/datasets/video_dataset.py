"""A data set of video files: records in, normalised clips out, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from timesformer.datasets.decoder import load_clips
from timesformer.datasets.records import Record
from timesformer.datasets.sampling import RateSampler
from timesformer.datasets.transform import EvalTransform, TrainTransform
from timesformer.datasets.views import ViewGrid
from timesformer.utils.errors import VideoError
from timesformer.utils.misc import keyed_rng

Item = tuple[torch.Tensor, int, int, dict[str, Any]]


class VideoDataset(Dataset):
    """Videos with labels. An item is `(inputs, label, index, meta)`, meta = {"view": LongTensor}.

    `dataset[index]` is epoch 0, `dataset[(index, epoch)]` another one. For training, inputs are a
    random clip (3, T, H, W) that depends on (seed, epoch, index) alone. For evaluation they are
    every view of the video, (V, 3, T, H, W), from one pass over its file, numbered as `views` says.
    Validation has one view and drops V: (3, T, H, W).

    Attributes:
        records: the videos, in the order of `index`.
        class_names: in label order, or ().
        num_views: views of a video, V.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sampler: RateSampler,
        transform: TrainTransform | EvalTransform,
        mode: str,
        views: ViewGrid | None = None,
        class_names: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        """Make a data set.

        Args:
            records: the videos.
            sampler: chooses frames.
            transform: makes clips of frames; a TrainTransform makes the set a random one.
            mode: train, val or test.
            views: the views of a test video; one centred clip when None.
            class_names: in label order, or ().
            seed: of the random clips.
        """
        if (mode == "train") != isinstance(transform, TrainTransform):
            raise ValueError(f"{type(transform).__name__} is not for mode {mode!r}")
        self.records = records
        self.sampler = sampler
        self.transform = transform
        self.mode = mode
        self.views = views or ViewGrid()
        self.class_names = class_names
        self.seed = seed

    @property
    def num_views(self) -> int:
        """Views of a video."""
        return self.views.num_views

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """Read one video.

        Raises:
            VideoError: its file can't be read.
        """
        index, epoch = key if isinstance(key, tuple) else (int(key), 0)
        path, label = self.records[index]
        if isinstance(self.transform, TrainTransform):
            rng = keyed_rng(self.seed, epoch, index)
            (frames,) = load_clips(path, self.sampler, [None], rng)
            return self.transform(frames, rng), label, index, {"view": torch.tensor(0)}
        clips = load_clips(path, self.sampler, self.views.clips)
        inputs = torch.cat([self.transform(frames) for frames in clips])
        if self.mode == "val":
            return inputs[0], label, index, {"view": torch.tensor(0)}
        return inputs, label, index, {"view": torch.arange(self.num_views)}

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Item | VideoError]:
        """Read a batch for a DataLoader; a file that can't be read is returned as its error.

        Raised in a worker, the error would reach the main process as a traceback of the worker.
        """
        return [self._item_or_error(key) for key in keys]

    def _item_or_error(self, key: int | tuple[int, int]) -> Item | VideoError:
        try:
            return self[key]
        except VideoError as error:
            return error
