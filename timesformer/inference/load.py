"""Models that look at videos: made from weights wherever they are, and complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from timesformer.clips.preprocessing import KEYS
from timesformer.inference.backends import KINDS, TORCH
from timesformer.inference.backends.choose import with_backend
from timesformer.inference.exported import is_exported, open_exported
from timesformer.inference.predictor import Predictor
from timesformer.models.base import VideoModel
from timesformer.models.create import from_pretrained
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

WHOLE = {"sampling": "segments", "num_frames": 8}  # of a model that nothing is known of
DEVICE = "auto"
_ALONE = "leave it out, or export again"


def load(
    source: str | Path,
    *,
    device: str = DEVICE,
    amp: str = "none",
    sampling_rate: int | None = None,
    backend: str = TORCH,
    tell: Callable[[str], None] = logger.info,
    **overrides: Any,
) -> Predictor:
    """Load a trained model, ready to be asked about videos.

    Args:
        source: a checkpoint, a run's folder, a folder of `save_pretrained` or of `transformers`,
            `hf/ORG/NAME`, …; or a file that `timesformer export` wrote, of which the other
            arguments can ask nothing but the CPU.
        device: cpu, cuda, cuda:1, …; auto is the GPU if there is one.
        amp: precision of forward passes: none (float32), bf16 or fp16.
        sampling_rate: distance of frames, at 30 frames/s, for weights that don't say it.
        backend: what computes forward passes: torch, or blocks, which torch compiles when they
            compute first; on the CPU compiled, onnxruntime or openvino too, whose files are made of
            the weights once and kept; or auto, the fastest of those with files and torch.
        tell: gets lines on the backend for people.
        **overrides: fields of `Architecture` to change, as `create_model` takes them.

    Raises:
        WeightsError: there are no such weights, or nobody knows their model.
        ConfigError: an override can't work.
        UserError: nothing says how its pixels are normalised; there is no such device; or there is
            a sampling rate, and the weights say theirs; or anything is asked of an exported file.
        ModuleNotFoundError: what computes an exported file, or a backend, isn't installed.
    """
    if is_exported(source):
        asked = {"--amp": amp != "none", "--sampling-rate": sampling_rate is not None}
        asked |= {"--device": device not in (DEVICE, "cpu"), "--backend": backend != TORCH}
        asked |= dict.fromkeys(overrides, True)
        for option, given in asked.items():
            if given:
                raise UserError(f"{option}: {source} is exported, and computes as it is: {_ALONE}")
        return Predictor(open_exported(source))
    if device == DEVICE and backend in KINDS:
        device = "cpu"
    [model] = load_models([source], sampling_rate, device=device, **overrides)
    return with_backend(Predictor(model, amp=amp), backend, str(source), tell)


def load_models(
    sources: Sequence[str | Path],
    sampling_rate: int | None = None,
    *,
    device: str = DEVICE,
    **overrides: Any,
) -> list[Any]:
    """Make models that are shown the same frames; the arguments are those of `load`.

    How frames are chosen for those whose weights don't say it is logged: see `complete`.

    Raises:
        UserError, WeightsError, ConfigError: as `load`.
    """
    place, models = device_of(device), []
    for source in sources:
        if is_exported(source):
            raise UserError(
                f"{source}: an exported file gives scores and nothing else: name the weights that "
                "it was made of"
            )
        model: Any = from_pretrained(source, **overrides)
        if not model.preprocessing:
            raise UserError(
                f"{source}: nothing says how its pixels are normalised: write it down with "
                f"`timesformer convert {source} FOLDER --to safetensors --mean R G B --std R G B`, "
                "and take FOLDER"
            )
        models.append(model.to(place))
    completed = complete(models, sampling_rate)
    if sampling_rate and not any(completed):
        raise UserError("--sampling-rate: all weights say which frames they take: leave it out")
    for source, added in zip(sources, completed, strict=True):
        if added:
            said = ", ".join(added)
            logger.warning("%s: its weights don't say which frames it takes: %s", source, said)
    return models


def device_of(name: str) -> torch.device:
    """Return the device of a name; auto is the GPU if there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == DEVICE:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r:.60}: {str(error).splitlines()[0]:.200}") from error
    return device


def complete(models: Sequence[VideoModel], sampling_rate: int | None = None) -> list[list[str]]:
    """Give models that don't say which frames they take a way to choose them.

    Image models say nothing of time, nor do published checkpoints. They take `sampling_rate`, or
    what the first model does that says it, so that all are shown the same frames, or else one
    frame of each of T equal parts of the video.

    Args:
        models: their `preprocessing` is completed.
        sampling_rate: distance of frames, at 30 frames/s.

    Returns:
        For each model the fields that were added, e.g. "sampling_rate 32".
    """
    time = ("num_frames", "sampling", "sampling_rate", "target_fps")
    said = [{n: m.preprocessing[n] for n in time if n in m.preprocessing} for m in models]
    pattern = next((s for s in said if {"sampling", "num_frames"} <= s.keys()), WHOLE)
    added: list[list[str]] = []
    for model, own in zip(models, said, strict=True):
        added.append([])
        if not model.preprocessing or "sampling" in own or "sampling_rate" in own:
            continue
        more = dict(pattern)
        if sampling_rate:
            more |= {"sampling": "rate", "sampling_rate": sampling_rate, "target_fps": 30.0}
        if takes_frames_apart(model):
            more = {**more, **own}
        else:
            built = model.architecture.num_frames if model.architecture else WHOLE["num_frames"]
            more["num_frames"] = own.get("num_frames", built)
        model.preprocessing |= more
        added[-1] = [f"{name} {value}" for name, value in more.items() if name in KEYS]
    return added


def takes_frames_apart(model: VideoModel) -> bool:
    """Tell whether a model looks at each frame by itself, so that any number of them will do."""
    built = model.architecture
    return built is not None and built.attention_type == "space_only"
