"""Whether maps point at the object that moves, on Synthetic, where its place is known.

Shape letters: T frames, H×W pixels, h×w patches of a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

COVERED = 0.25  # share of a patch from which it counts as the object's


class Localisation(NamedTuple):
    """How well a map finds an object, and how well chance does.

    Attributes:
        energy: share of the map that lies on the object.
        energy_chance: of a map that is the same everywhere.
        pointing: share of frames whose most important patch is one of the object's.
        pointing_chance: of a random patch.
    """

    energy: float
    energy_chance: float
    pointing: float
    pointing_chance: float


def localisation(relevance: Tensor, opacity: Tensor) -> Localisation:
    """Hold a map against the place of an object.

    Args:
        relevance: (T, h, w), adding up to 1.
        opacity: how much of the object each pixel shows, in [0, 1], (T, H, W).
    """
    _, h, w = relevance.shape
    there = nn.functional.adaptive_avg_pool2d(opacity[None], (h, w))[0]
    on = there >= COVERED
    seen = on.flatten(1).any(1)  # it may be out of the picture
    best = relevance.flatten(1).argmax(1)
    hits = on.flatten(1).gather(1, best[:, None])[:, 0]
    return Localisation(
        float(relevance[on].sum()),
        float(on.float().mean()),
        float(hits[seen].float().mean()) if seen.any() else torch.nan,
        float(on[seen].float().mean()) if seen.any() else torch.nan,
    )
