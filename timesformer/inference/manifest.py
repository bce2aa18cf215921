"""What the features of a folder are: written once, and held against whatever is asked later."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timesformer import __version__
from timesformer.datasets.lists.records import Records
from timesformer.inference.features import MANIFEST, PARTS, read_manifest
from timesformer.inference.passes import Look
from timesformer.inference.predictor import TORCH, Predictor
from timesformer.inference.settings import Settings
from timesformer.utils.claims import Claims
from timesformer.utils.errors import UserError
from timesformer.utils.files import write_text
from timesformer.utils.logging import get_logger
from timesformer.utils.tensors import digest_of

logger = get_logger(__name__)

FORMAT = 1  # goes up when the same model and video give other rows, or files another layout
MANIFEST_CLAIM = 0
LONG = ("inputs_sha256", "weights_sha256", "architecture", "preprocessing")  # no message has them


def description(
    predictor: Predictor,
    settings: Settings,
    look: Look,
    layer: int | None,
    records: Records,
    frames_fps: float,
) -> dict[str, Any]:
    """Return all that features depend on, as JSON has it."""
    built = predictor.model.architecture
    asked = {
        "videos": len(records),
        "inputs_sha256": inputs_digest(records),
        "weights_sha256": digest_of(predictor.model.state_dict()),
        "architecture": built.to_json() if built else type(predictor.model).__name__,
        "preprocessing": predictor.model.preprocessing,
        "level": settings.level,
        "layer": layer,
        "views": look.testing.views,
        "stride": settings.stride,
        "window": look.windows.window if look.windows else None,
        "dtype": "float16" if settings.fp16 else "float32",
        "frames_fps": frames_fps,
        "amp": predictor.amp,
        "device": predictor.device.type,
        "backend": predictor.backend,
        "batch_size": settings.batch_size,
        "videos_a_part": settings.part,
        "file_format": settings.file_format,
    }
    return json.loads(json.dumps(asked))


def inputs_digest(records: Records) -> str:
    """SHA-256 of the paths in their order; what is in the files isn't looked at.

    Where images of a folder are meant, which ones is a part of its path.
    """
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.path.encode("utf-8", "surrogateescape") + b"\0")
        if record.images is not None:
            digest.update(repr(tuple(record.images)).encode() + b"\0")
    return digest.hexdigest()


def agree(folder: Path, asked: dict[str, Any], claims: Claims, source: str) -> int:
    """Write what a folder is for, or make sure that it is for this.

    Returns:
        The threads that its features are computed with, on a CPU.

    Raises:
        UserError: it has features of something else, or of nobody knows what.
    """
    with claims.holding(MANIFEST_CLAIM):
        if not (folder / MANIFEST).exists():
            if any((folder / PARTS).glob("part-*")):
                raise UserError(
                    f"{folder}: has parts, and no {MANIFEST}, so nobody knows what they are of: "
                    "choose another folder"
                )
            said = {
                "format": FORMAT,
                "asked": asked,
                "threads": torch.get_num_threads(),
                "checkpoint": source,
                "versions": versions(),
            }
            write_text(folder / MANIFEST, json.dumps(said, indent=1) + "\n")
            return torch.get_num_threads()
    found = read_manifest(folder)
    earlier = {"backend": TORCH}  # wasn't said when there was no other
    theirs = earlier | found["asked"] | {"format": found["format"]}
    ours = asked | {"format": FORMAT}
    if differing := [name for name in ours if theirs.get(name) != ours[name]]:
        told = ", ".join(
            f"other {name.replace('_sha256', '')}" if name in LONG
            else f"{name} {theirs.get(name)}, not {ours[name]}"
            for name in differing
        )  # fmt: skip
        raise UserError(f"{folder}: has features of {told}: choose another folder")
    if (before := found["versions"]) != versions():
        changed = [
            f"{n} {before.get(n)} → {v}" for n, v in versions().items() if before.get(n) != v
        ]
        logger.warning("%s: begun with other versions: %s", folder, ", ".join(changed))
    return found["threads"]


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "timesformer": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
