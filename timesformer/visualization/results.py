"""Reading what a multi-view test saved, and refusing what only looks like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer.utils.errors import UserError
from timesformer.utils.files import is_folder, open_regular
from timesformer.utils.npz import NPZ_DAMAGE

SAVED = "TEST.SAVE_RESULTS_PATH scores.npz"


def read_results(path: Path) -> dict[str, Any]:
    """Read an `.npz` of TEST.SAVE_RESULTS_PATH: the arrays by name, the texts as such.

    Raises:
        UserError: if the file is missing or isn't one, or videos have several labels.
    """
    if path.suffix == ".csv":
        raise UserError(f"{path}: a table for people; give the .npz that {SAVED} writes")
    if is_folder(path):
        found = sorted(path.glob("*.npz"))
        hint = f"give {found[0]}" if found else f"test with {SAVED}, which puts it into OUTPUT_DIR"
        raise UserError(f"{path}: a folder, not the .npz of a test; {hint}")
    names = ("scores", "per_view", "labels", "paths", "failed", "class_names")
    try:
        with open_regular(path) as file:
            arrays = np.load(file)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of several")
            fields: dict[str, Any] = {name: arrays[name] for name in names}
            fields["config"] = str(arrays["config"]) if "config" in arrays else ""
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; test with {SAVED}") from None
    except KeyError as error:
        raise UserError(f"{path}: not the .npz of a test: {error.args[0]}") from error
    except (OSError, *NPZ_DAMAGE) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it ends too early"
        if "pickle" in str(error):  # what numpy takes every file for that is none of its own
            reason = "it is no archive of arrays"
        raise UserError(f"{path}: not the .npz of a test: {reason}") from error
    if fields["labels"].ndim == 2:
        raise UserError(f"{path}: videos with several labels can't be drawn yet")
    if wrong := _misfits(fields):
        raise UserError(f"{path}: not the .npz of a test: {wrong}")
    fields["class_names"] = tuple(fields["class_names"].tolist())
    return fields


def _misfits(fields: Mapping[str, NDArray]) -> str:
    """Say which array isn't what a test writes, or return ""."""
    views = fields["per_view"].shape
    videos, classes = (*views, 0, 0, 0)[0:3:2]
    known = len(fields["class_names"]) if fields["class_names"].ndim == 1 else -1
    wanted = {  # kinds of numpy, shape
        "per_view": ("f", (videos, *views[1:2], classes)),
        "scores": ("f", (videos, classes)),
        "labels": ("iu", (videos,)),
        "paths": ("U", (videos,)),
        "failed": ("b", (videos,)),
        "class_names": ("U", (known if known in (0, classes) else classes,)),
    }
    for name, (kinds, shape) in wanted.items():
        found = fields[name]
        if found.dtype.kind not in kinds or found.shape != shape:
            return f"{name} is {found.dtype} {found.shape}"
    labels = fields["labels"]
    if not videos or not classes or not ((labels >= 0) & (labels < classes)).all():
        return f"labels must be below the {classes} classes"
    return ""
