"""How well maps point at the object and how far they can be believed, over videos of Synthetic.

Shape letters: T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from timesformer.explain.localisation import localisation
from timesformer.explain.videos import explain_video
from timesformer.models.base import VideoModel
from timesformer.prepare.synthetic_writer import SyntheticSpec


class Proof(NamedTuple):
    """Means over videos.

    Attributes:
        energy: share of a map that lies on the object.
        energy_chance: of a map that is the same everywhere.
        pointing: share of frames whose most important patch is one of the object's.
        pointing_chance: of a random patch.
        score: of the map: area under insertion less that under deletion, from -1 to 1.
        score_random: of random orders.
        score_centre: of an order from the centre outwards.
        faithful: share of maps that beat both.
    """

    energy: float
    energy_chance: float
    pointing: float
    pointing_chance: float
    score: float
    score_random: float
    score_centre: float
    faithful: float


def prove(
    model: VideoModel,
    spec: SyntheticSpec,
    folder: Path,
    videos: Iterable[int],
    method: str,
    split: str = "test",
) -> Proof:
    """Explain videos of a Synthetic data set, and hold the maps against what is known of them.

    Args:
        model: knows its preprocessing.
        spec: of the data set.
        folder: where it is.
        videos: their numbers in the split.
        method: see `models.explain.relevance`.
        split: train, val or test.

    Raises:
        VideoError: a video is missing or can't be read.
        ValueError: the model has no attention that the method could read.
    """
    rows = []
    for index in videos:
        found = explain_video(model, folder / spec.path(split, index), method)
        opacity = seen_by(model, torch.from_numpy(spec.scene(split, index)[1][found.numbers]))
        there = localisation(torch.from_numpy(found.maps), opacity)
        told = found.faithfulness
        scores = (told.map.score, told.random.score, told.centre.score)
        rows.append((*there, *scores, float(told.is_faithful)))
    return Proof(*torch.tensor(rows, dtype=torch.float64).nanmean(0).tolist())


def seen_by(model: VideoModel, opacity: Tensor) -> Tensor:
    """Crop (T, H, W) in [0, 1] as the model's frames are cropped."""
    frames = (255 * opacity).round().byte()[..., None].expand(-1, -1, -1, 3)
    return model.crop(frames)[0, 0].float() / 255
