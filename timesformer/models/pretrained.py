"""Loading weights that somebody else made: read, normalise names, adapt, load, report.

Every weight of the model and every entry of the file is accounted for in a `LoadReport`; what
can't be explained is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.models.pos_embed import resize_pos_embed, resize_time_embed
from timesformer.utils.checkpoint import bare, read_checkpoint
from timesformer.utils.errors import WeightsError

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

_CONTAINERS = ("model_state", "state_dict", "model", "module")
_PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass
class LoadReport:
    """What became of every weight; names are those of the `VisionTransformer`.

    Attributes:
        source: file or `timm/NAME`.
        loaded: taken as they are.
        resized: taken, and fitted to another size.
        copied: made from other weights of the file (temporal from spatial attention).
        zeroed: not in an image model, and left at zero so that training starts there.
        missing: not in the file and left as initialised (a head for other classes).
        unexpected: in the file and not used (a head for other classes, pre_logits).
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    zeroed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line of counts, with names where they are few."""
        parts = [f"loaded {len(self.loaded)} weights from {self.source}"]
        for what in ("resized", "copied", "zeroed", "missing", "unexpected"):
            names = getattr(self, what)
            if names:
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                parts.append(f"{what} {len(names)} ({shown})")
        return "; ".join(parts)


def load_pretrained(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    pos_embed_resize: str = "bicubic",
    name: str = "a state dict",
) -> LoadReport:
    """Loads image or video weights into a model, in place.

    Args:
        model: a `VisionTransformer`, or a model that holds one as `.model`.
        source: a .pth, .pyth, .pt or .safetensors file; `timm/NAME` for a model of timm's; or the
            content of such a file.
        pos_embed_resize: how pos_embed is fitted to another grid: "bicubic", or "legacy" as in the
            published loader (see `resize_pos_embed`).
        name: what messages call a `source` that is the content of a file.

    Returns:
        What happened to every weight; it is logged too.

    Raises:
        WeightsError: if weights can't be read or fetched, or some can't be explained.
    """
    vit: Any = bare(model)
    vit = getattr(vit, "model", vit)
    if isinstance(source, Mapping):
        content: Mapping[str, Any] = source
    else:
        name, content = str(source), _read(str(source))
    report = LoadReport(name)
    state = _adapt(_normalise(content, name), vit, report, pos_embed_resize)
    _check(state, vit, report)
    vit.load_state_dict(state, strict=False)
    logger.info("%s", report.summary())
    return report


def _read(name: str) -> Mapping[str, Any]:
    if name.startswith("timm/") and not Path(name).exists():
        return _fetch_timm(name.removeprefix("timm/"))
    if not Path(name).is_file():
        raise WeightsError(
            f"{name}: no such weights file; TIMESFORMER.PRETRAINED_MODEL takes a file, timm/NAME, "
            "or '' for none"
        )
    if name.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{name}: not a readable safetensors file ({error})") from error
    return read_checkpoint(name)


def _fetch_timm(name: str) -> StateDict:
    import timm

    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # hub, network and cache failures have no common base class
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"can't fetch timm/{name} ({reason[0]}); on a machine with internet download "
            f"model.safetensors from https://huggingface.co/timm/{name}, copy it here, and set "
            "TIMESFORMER.PRETRAINED_MODEL to its path ('' trains from fresh weights)"
        ) from error


def _normalise(content: Mapping[str, Any], name: str) -> StateDict:
    """Unpacks containers and strips wrappers' prefixes: the published names remain."""
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{name}: holds no weights, only {', '.join(list(content)[:8])}")
    while True:
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None)
        if prefix is None:
            return state
        state = {key.removeprefix(prefix): value for key, value in state.items()}


def _adapt(state: StateDict, vit: Any, report: LoadReport, resize: str) -> StateDict:
    """Fits names and sizes to the model; fills the report."""
    own = vit.state_dict()
    state = dict(state)
    for key in [k for k in state if k.startswith("pre_logits.")]:
        report.unexpected.append(key)
        del state[key]

    patch, embed = "patch_embed.proj.weight", "pos_embed"
    if patch in state and state[patch].ndim == 2 and state[patch].numel() == own[patch].numel():
        state[patch] = state[patch].reshape(own[patch].shape)
        report.resized.append(patch)
    if embed in state and state[embed].shape[1:2] != own[embed].shape[1:2]:
        try:
            state[embed] = resize_pos_embed(state[embed], vit.patch_embed.grid_size, resize)
            report.resized.append(embed)
        except ValueError as error:
            raise WeightsError(f"{report.source}: pos_embed: {error}") from error

    heads = [k for k in own if k.startswith("head.")]
    if any(k not in state or state[k].shape != own[k].shape for k in heads) or not heads:
        report.unexpected += [k for k in list(state) if k.startswith("head.")]
        report.missing += heads
        state = {k: v for k, v in state.items() if not k.startswith("head.")}

    if "time_embed" in own:
        if "time_embed" in state:
            if state["time_embed"].shape[1] != own["time_embed"].shape[1]:
                frames = own["time_embed"].shape[1]
                state["time_embed"] = resize_time_embed(state["time_embed"], frames)
                report.resized.append("time_embed")
        else:
            _start_as_image_model(state, vit, own, report)
    return state


def _start_as_image_model(
    state: StateDict, vit: Any, own: Mapping[str, Tensor], report: LoadReport
) -> None:
    """Adds what an image model lacks: copies for new attention, zeros where a step begins."""
    new = {part for block in vit.blocks for part in (*block.image_init, *block.zero_init)}
    if any(key.split(".")[2] in new for key in state if key.startswith("blocks.")):
        return  # part of a video model: what it lacks is an error, not a start
    state["time_embed"] = torch.zeros_like(own["time_embed"])
    report.zeroed.append("time_embed")
    for i, block in enumerate(vit.blocks):
        for key in [k for k in own if k.startswith(f"blocks.{i}.") and k not in state]:
            part, _, tail = key.removeprefix(f"blocks.{i}.").partition(".")
            image = f"blocks.{i}.{block.image_init.get(part, '')}.{tail}"
            if part in block.zero_init:
                state[key] = torch.zeros_like(own[key])
                report.zeroed.append(key)
            elif image in state:
                state[key] = state[image].clone()
                report.copied.append(key)


def _check(state: StateDict, vit: nn.Module, report: LoadReport) -> None:
    """Sorts the rest into `loaded`; raises on anything left over, one line for all of it."""
    own = vit.state_dict()
    wrong = [f"{k}: missing in the file" for k in own.keys() - state.keys() - {*report.missing}]
    wrong += [f"{k}: not in the model" for k in state.keys() - own.keys()]
    for key in own.keys() & state.keys():
        if state[key].shape != own[key].shape:
            shapes = f"{tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            wrong.append(f"{key}: {shapes}")
    if wrong:
        raise WeightsError(
            f"{report.source}: not weights of this model ({len(wrong)} entries differ; check "
            "TIMESFORMER.ATTENTION_TYPE, EMBED_DIM, DEPTH and PATCH_SIZE): "
            + "; ".join(sorted(wrong))
        )
    explained = {*report.resized, *report.copied, *report.zeroed}
    report.loaded = [k for k in own if k in state and k not in explained]
