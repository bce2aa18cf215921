"""How well maps point at the object and how far they can be believed, over generated videos.

Shape letters: T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timesformer.explain.localisation import Localisation, localisation
from timesformer.explain.videos import explain_video
from timesformer.models.base import VideoModel

Floats = NDArray[np.float32]


class Proof(NamedTuple):
    """Means over videos.

    Attributes:
        place: how well maps find the object.
        score: of the map: area under insertion less that under deletion, from -1 to 1.
        score_random: of random orders.
        score_centre: of an order from the centre outwards.
        faithful: share of maps that beat both.
    """

    place: Localisation
    score: float
    score_random: float
    score_centre: float
    faithful: float


def prove(model: VideoModel, videos: Iterable[tuple[Path, Floats]], method: str) -> Proof:
    """Explain videos, and hold the maps against what is known of them.

    Args:
        model: knows its preprocessing.
        videos: each file, and how much of the object each pixel of its frames shows, in [0, 1]
            (T, H, W), as `SyntheticSpec.scene` says.
        method: see `models.explain.relevance`.

    Raises:
        VideoError: a video is missing or can't be read.
        ValueError: the model has no attention that the method could read.
    """
    rows = []
    for path, opacity in videos:
        found = explain_video(model, path, method)
        seen = seen_by(model, torch.from_numpy(opacity[found.numbers]))
        there = localisation(torch.from_numpy(found.maps), seen)
        told = found.faithfulness
        scores = (told.map.score, told.random.score, told.centre.score)
        rows.append((*there, *scores, float(told.is_faithful)))
    means = torch.tensor(rows, dtype=torch.float64).nanmean(0).tolist()
    count = len(Localisation._fields)
    return Proof(Localisation(*means[:count]), *means[count:])


def seen_by(model: VideoModel, opacity: Tensor) -> Tensor:
    """Crop (T, H, W) in [0, 1] as the model's frames are cropped."""
    frames = (255 * opacity).round().byte()[..., None].expand(-1, -1, -1, 3)
    return model.crop(frames)[0, 0].float() / 255
