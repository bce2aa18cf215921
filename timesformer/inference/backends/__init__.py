"""What computes a model's forward passes: torch, or files that other programs compute faster."""

from __future__ import annotations

from timesformer.inference.formats import FORMATS, Format
from timesformer.inference.formats.compiled import Compiled

TORCH, AUTO = "torch", "auto"
KINDS: dict[str, Format] = {
    "compiled": Compiled(),
    **{kind.runtime: kind for kind in FORMATS.values() if kind.runtime != TORCH},
}
"""Backends of the CPU that compute a file, by the name that `--backend` takes."""
BACKENDS = (TORCH, *KINDS, AUTO)
