"""Models that are looked at with videos: what they are called, and what they are made from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from timesformer.embed.features import complete
from timesformer.models.create import from_pretrained
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


def load_models(
    sources: Sequence[str], names: Sequence[str], sampling_rate: int | None = None
) -> dict[str, Any]:
    """Make the models, on the GPU if there is one.

    How frames are chosen for those whose weights don't say it is printed.

    Args:
        sources: where weights are.
        names: what each is called.
        sampling_rate: see `complete`.

    Raises:
        UserError: nothing says how one's pixels are normalised; or there is a sampling rate, and
            all weights say theirs.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models: dict[str, Any] = {}
    for source, name in zip(sources, names, strict=True):
        model: Any = from_pretrained(source)
        if not model.preprocessing:
            raise UserError(
                f"{source}: nothing says how its pixels are normalised: write it down with "
                f"`timesformer convert {source} FOLDER --to safetensors --mean R G B --std R G B`, "
                "and take FOLDER"
            )
        models[name] = model.to(device)
    completed = complete([*models.values()], sampling_rate)
    if sampling_rate and not any(completed):
        raise UserError("--sampling-rate: all weights say which frames they take: leave it out")
    for name, added in zip(names, completed, strict=True):
        if added:
            print(f"{name}: its weights don't say which frames it takes: {', '.join(added)}")
    return models
