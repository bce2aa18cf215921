"""What weights that are looked at side by side are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from timesformer.utils.errors import UserError

WEIGHT_SUFFIXES = (".pyth", ".pth", ".pt", ".bin", ".safetensors", ".npz")
UNTELLING = ("checkpoint", "model", "pytorch_model")  # how names of files begin that say little


def names_of(sources: Sequence[str]) -> list[str]:
    """Call weights by the end of their path, as much of it as tells them apart."""
    paths = []
    for source in sources:
        stem = next((source[: -len(s)] for s in WEIGHT_SUFFIXES if source.endswith(s)), source)
        path = Path(stem).resolve() if os.path.lexists(source) else Path(stem)
        parts = [part for part in path.parts if part not in ("/", "checkpoints")] or [source]
        if parts[-1].startswith(UNTELLING) and parts[1:]:
            parts[-2:] = ["/".join(parts[-2:])]
        paths.append(parts)
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def check_names(names: Sequence[str], sources: Sequence[str]) -> None:
    """Make sure that each checkpoint has a name of its own.

    Raises:
        UserError: it hasn't.
    """
    if len(names) != len(sources):
        raise UserError(f"--name is given {len(names)} times, --checkpoint {len(sources)} times")
    places = [os.path.abspath(s) if os.path.lexists(s) else s for s in sources]  # noqa: PTH100
    for i, (name, source) in enumerate(zip(names, sources, strict=True)):
        if places[i] in places[:i]:
            raise UserError(f"--checkpoint {source}: is given twice")
        if name in names[:i] or not name.strip():
            raise UserError(f"--name {name!r:.80}: each panel needs a name of its own")
