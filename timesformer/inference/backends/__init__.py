"""What computes a model's forward passes: torch, or files that other programs compute faster."""

from __future__ import annotations

from timesformer.inference.formats import FORMATS, Format
from timesformer.inference.formats.compiled import Compiled
from timesformer.inference.predictor import TORCH

BLOCKS, AUTO = "blocks", "auto"
OF_TORCH = (TORCH, BLOCKS)
"""Those that compute the model itself, on any device and whatever is asked of it."""
KINDS: dict[str, Format] = {
    "compiled": Compiled(),
    **{kind.runtime: kind for kind in FORMATS.values() if kind.runtime != TORCH},
}
"""Backends of the CPU that compute a file, by the name that `--backend` takes."""
BACKENDS = (*OF_TORCH, *KINDS, AUTO)
