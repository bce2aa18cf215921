"""Where weights come from: files, folders, and the hubs of timm, torchvision and Hugging Face.

Whatever the source, the content comes back as one mapping.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer.models.lora import merged
from timesformer.models.weights.averaged import chosen
from timesformer.models.weights.files import read_file
from timesformer.models.weights.folders import read_folder
from timesformer.models.weights.formats import hugging_face
from timesformer.models.weights.hubs import HUBS
from timesformer.models.weights.said import completed
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import is_file, is_folder

logger = logging.getLogger(__name__)


def read_weights(source: str | Path, which: str | None = None) -> Mapping[str, Any]:
    """Read or fetch weights onto the CPU; nothing in them is ever run.

    Args:
        source: a .pyth, .pth, .pt, .bin, .safetensors or .npz file (what is in it decides, not
            its name); a folder of `save_pretrained`, ours or Hugging Face's; a checkpoint in
            parts; the folder of a run, for its newest sound checkpoint; `timm/NAME`;
            `torchvision/NAME`, with the default weights, or `torchvision/NAME.WEIGHTS`; or
            `hf/ORG/NAME`.
        which: of a run's checkpoint the weights of the last step (raw), or their moving average
            (ema); None takes those that the run was to be tested with (TEST.WEIGHTS).

    Raises:
        WeightsError: if there are no such weights, or they can't be read or fetched.
    """
    return _completed(source, chosen(source, _read(source), which))


def read_all(source: str | Path) -> Mapping[str, Any]:
    """Do what `read_weights` does, and return both sets of weights where a file has an average."""
    return _completed(source, _read(source))


def _completed(source: str | Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    content = dict(content)
    for name in ("model_state", "ema_state"):
        if isinstance(content.get(name), Mapping):
            content[name] = merged(content[name])
    try:
        return completed(content)
    except ValueError as error:
        raise WeightsError(f"{source}: {error}") from error


def _read(source: str | Path) -> Mapping[str, Any]:
    if not isinstance(source, str | Path):
        raise WeightsError(f"weights are the name of a file, a folder, …, not {source!r:.60}")
    name, path = str(source), Path(source)
    if is_folder(name):
        return read_folder(path)
    if is_file(name):
        content = read_file(path)
        if hugging_face.is_space_only(content):
            logger.warning("%s: %s", name, hugging_face.NOT_AVERAGED)
        return content
    hub, _, rest = name.partition("/")
    if hub in HUBS and rest:
        return HUBS[hub](rest)
    if os.path.exists(name):  # noqa: PTH110  (which doesn't raise for a name that is too long)
        raise WeightsError(f"{name}: not a regular file")
    raise WeightsError(
        f"{name}: no such weights file; weights are a file, a folder, timm/NAME, torchvision/NAME, "
        "hf/ORG/NAME, or '' for none (TIMESFORMER.PRETRAINED_MODEL)"
    )
