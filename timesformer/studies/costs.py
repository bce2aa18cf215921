"""What the paper's models cost (arXiv 2102.05095), counted on models without memory."""

from __future__ import annotations

from functools import cache

import torch

from timesformer.models.profiling import count_macs, count_parameters
from timesformer.models.vit import TimeSformer

VIEWS = 3  # of a test in the paper
NOTE = """\
Paper: arXiv 2102.05095. Its TFLOPs are 10¹² multiply-adds of 3 views: half of what counts a
multiplication and an addition apart. GMACs: 10⁹ multiply-adds of one view. Accuracies are the
paper's, in %."""


@cache
def cost(scheme: str, frames: int, side: int, classes: int = 400) -> tuple[int, int]:
    """Return parameters, and multiply-adds of a clip of `frames` × `side`²."""
    with torch.device("meta"):
        model = TimeSformer(side, 16, classes, frames, scheme)
    return count_parameters(model), count_macs(model, (3, frames, side, side))
