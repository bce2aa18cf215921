"""Features of videos, one row a video: what a model's last layer gets of the clip in the middle.

Shape letters: V videos, D features, T frames, H×W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from timesformer.clips.sampling import sampler_of
from timesformer.clips.transform import to_pictures
from timesformer.datasets.lists.records import Record
from timesformer.datasets.loader import evaluation_loader
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import FAILED, Problem, VideoDataset
from timesformer.datasets.workers import worker_errors
from timesformer.embed import BATCH
from timesformer.models.base import VideoModel
from timesformer.utils.errors import UserError
from timesformer.utils.logging import progress

THUMBNAIL = 96  # pixels, the longer side of a middle frame


class BlindModelError(UserError):
    """A model of whose features nothing can be drawn; others may see."""


@dataclass(frozen=True)
class Features:
    """Features of videos.

    Attributes:
        features: (V, D), float32.
        index: of these videos among the records (V,).
        thumbnails: the middle frame that the model saw of each, as a JPEG file.
        damage: what is wrong with a file although it could be read, or "", of each.
        failed: videos that couldn't be read.
    """

    features: NDArray[np.float32]
    index: NDArray[np.int64]
    thumbnails: list[bytes]
    damage: list[str]
    failed: list[Problem]

    def of(self, videos: NDArray[np.int64]) -> Features:
        """Return those of some of the videos."""
        places = np.flatnonzero(np.isin(self.index, videos))
        return replace(
            self,
            features=self.features[places],
            index=self.index[places],
            thumbnails=[self.thumbnails[i] for i in places],
            damage=[self.damage[i] for i in places],
        )


def embed_videos(
    model: VideoModel,
    records: Sequence[Record],
    *,
    reader: VideoReader | None = None,
    batch_size: int = BATCH,
    workers: int = 0,
) -> Features:
    """Return the features of videos: one clip of each, from the middle, cropped in the centre.

    Args:
        model: knows its `preprocessing`; see `complete`. It is used on the device that it is on, in
            eval mode.
        records: the videos; their labels play no part.
        reader: reads files; by PyAV when None.
        batch_size: videos that the model gets at once.
        workers: processes that decode; 0: this one.

    Raises:
        ConfigError: nothing says how the model's input is made.
        BlindModelError: features aren't finite.
    """
    training = model.training
    dataset = VideoDataset(
        records,
        sampler_of(**model.sampling | {"clip_sampling": "center"}),
        model.crops(),
        "val",
        normalize=model.normalize,
        reader=reader,
    )
    loader = evaluation_loader(dataset, batch_size, workers)
    rows: list[NDArray[np.float32]] = []
    index: list[int] = []
    thumbnails: list[bytes] = []
    problems: list[Problem] = []
    model.eval()
    try:
        with torch.no_grad(), worker_errors(loader):
            for clips, _, places, meta in progress(loader, "embed", len(loader)):
                problems += meta["problems"]
                if not len(clips):
                    continue
                thumbnails += map(thumbnail, clips[:, :, clips.shape[2] // 2])
                rows.append(_of_batch(model, dataset, clips))
                index += places.tolist()
    finally:
        model.train(training)
    damage = {p.record: p.reason for p in problems if p.treatment != FAILED}
    return Features(
        features=np.concatenate(rows) if rows else np.empty((0, 0), np.float32),
        index=np.array(index, np.int64),
        thumbnails=thumbnails,
        damage=[damage.get(i, "") for i in index],
        failed=[p for p in problems if p.treatment == FAILED],
    )


def _of_batch(model: VideoModel, dataset: VideoDataset, clips: Tensor) -> NDArray[np.float32]:
    device = next(model.parameters()).device
    found = model.clip_features(dataset.normalize(clips.to(device))).float().cpu().numpy()
    if not np.isfinite(found).all():
        raise BlindModelError(
            "the model gives features that aren't finite: its weights are no good"
        )
    return found


def thumbnail(pixels: Tensor) -> bytes:
    """Return a small JPEG file of a picture (3, H, W) of values 0..255."""
    picture = Image.fromarray(to_pictures(pixels))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    with io.BytesIO() as file:
        picture.save(file, format="JPEG", quality=80)
        return file.getvalue()


def in_common(
    found: Mapping[str, Features],
) -> tuple[dict[str, Features], NDArray[np.int64]]:
    """Keep the videos that all models have, so that panels show the same; and their numbers."""
    kept = np.array(sorted(set.intersection(*({*f.index.tolist()} for f in found.values()))), int)
    return {name: features.of(kept) for name, features in found.items()}, kept
