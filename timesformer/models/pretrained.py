"""Loading weights that somebody else made: read, normalise names, adapt, load, report.

Every weight of the model and every entry of the file is accounted for in a `LoadReport`; what
can't be explained is an error, and the model is then left as it was.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.pos_embed import resize_pos_embed, resize_time_embed
from timesformer.utils.checkpoint import bare, differences, read_checkpoint
from timesformer.utils.errors import WeightsError

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

_CONTAINERS = ("model_state", "state_dict", "model", "module")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_PATCH = "patch_embed.proj.weight"


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight; names are those of the `VisionTransformer`.

    A weight of the model is in exactly one of `loaded`, `resized`, `copied`, `zeroed`, `missing`.

    Attributes:
        source: file or `timm/NAME`.
        loaded: taken as they are.
        resized: taken, and fitted to another size.
        copied: made from other weights of the file (temporal from spatial attention).
        zeroed: not in an image model, and set to zero so that training starts there.
        missing: not in the file and left as initialised (the head, where the file has none or one
            for other classes).
        unexpected: in the file, with no place in the model (a head for other classes).
        ignored: in the file, and nothing that a video model needs (pre_logits, counters).
    """

    source: str
    loaded: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    zeroed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line of counts, with names where they are few."""
        parts = [f"loaded {len(self.loaded)} weights from {self.source}"]
        for field in fields(self)[2:]:
            if names := getattr(self, field.name):
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                parts.append(f"{field.name} {len(names)} ({shown})")
        return "; ".join(parts)


def load_pretrained(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    pos_embed_resize: str = "bicubic",
    name: str = "a state dict",
) -> LoadReport:
    """Loads image or video weights into a model, in place.

    An image ViT starts a video model as the paper does: new attention is copied from the image's,
    the layers that end a new step and time_embed are zero, so a still video gives the image
    model's output.

    Args:
        model: a `VisionTransformer`, or a model that holds one as `.model`, wrapped or not.
        source: a .pth, .pyth, .pt or .safetensors file; `timm/NAME` for a model of timm's; or the
            content of such a file.
        pos_embed_resize: how pos_embed is fitted to another grid: "bicubic" in two dimensions, or
            "legacy", the published behaviour: 1-D nearest over the flattened patch sequence,
            which scrambles rows and columns; only for scoring as old runs did.
        name: what messages call a `source` that is the content of a file.

    Returns:
        What happened to every weight; it is logged too.

    Raises:
        WeightsError: if weights can't be read or fetched, or some can't be explained; the message
            lists all of those.
    """
    vit: Any = bare(model)
    vit = getattr(vit, "model", vit)
    if isinstance(source, Mapping):
        content: Mapping[str, Any] = source
    else:
        name, content = str(source), _read(str(source))
    fate: dict[str, list[str]] = {field.name: [] for field in fields(LoadReport)[1:]}
    try:
        found = _normalise(content, fate)
        state = _adapt(found, vit, fate, pos_embed_resize)
        _check(state, vit.state_dict(), found, fate["missing"])
    except ValueError as error:
        raise WeightsError(f"{name}: {error}") from error
    vit.load_state_dict(state, strict=False)
    explained = {*fate["resized"], *fate["copied"], *fate["zeroed"]}
    fate["loaded"] = [key for key in vit.state_dict() if key in state and key not in explained]
    report = LoadReport(name, **{what: tuple(names) for what, names in fate.items()})
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
    if not name.endswith(".safetensors"):
        return read_checkpoint(name)
    try:
        return load_file(name)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{name}: not a readable safetensors file ({error})") from error


def _fetch_timm(name: str) -> StateDict:
    if not timm.is_model_pretrained(name):
        close = difflib.get_close_matches(name, timm.list_pretrained(), n=1, cutoff=0.5)
        hint = f"; did you mean timm/{close[0]}?" if close else ""
        raise WeightsError(f"timm/{name}: timm has no weights of that name{hint}")
    logger.info("fetching timm/%s", name)
    try:
        # timm draws initial weights first; the run's own random numbers mustn't depend on that.
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # hub, network and cache failures have no common base class
        reason = str(error).strip().splitlines() or [type(error).__name__]
        # The repository's name has the tag that timm adds to a NAME without one.
        repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or f"timm/{name}"
        raise WeightsError(
            f"can't fetch timm/{name} ({reason[0]}); on a machine with internet download "
            f"model.safetensors from https://huggingface.co/{repository}, copy it here, and set "
            "TIMESFORMER.PRETRAINED_MODEL to its path ('' trains from fresh weights)"
        ) from error


def _normalise(content: Mapping[str, Any], fate: dict[str, list[str]]) -> StateDict:
    """Unpacks containers and strips wrappers' prefixes: the published names remain."""
    while inner := [key for key in _CONTAINERS if isinstance(content.get(key), Mapping)]:
        content = content[inner[0]]
    state: StateDict = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            fate["ignored"].append(str(key))
            continue
        name = key
        while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
            name = name.removeprefix(prefix)
        if name in state:
            raise ValueError(f"holds {name} twice, once as {key}")
        state[name] = value
    if not state:
        raise ValueError(f"holds no weights, only {', '.join(fate['ignored'][:8]) or 'nothing'}")
    return state


def _adapt(state: StateDict, vit: Any, fate: dict[str, list[str]], resize: str) -> StateDict:
    """Fits names and sizes to the model, and notes what it did; what doesn't fit stays as it is."""
    own = vit.state_dict()
    fate["ignored"] += [key for key in state if key.startswith("pre_logits.")]
    state = {key: value for key, value in state.items() if not key.startswith("pre_logits.")}

    def fit(key: str, value: Tensor) -> None:
        state[key] = value
        fate["resized"].append(key)

    if _PATCH in state and state[_PATCH].shape == own[_PATCH].flatten(1).shape:
        fit(_PATCH, state[_PATCH].reshape(own[_PATCH].shape))
    if _longer_or_shorter("pos_embed", state, own):
        grid = vit.patch_embed.grid_size
        fit("pos_embed", resize_pos_embed(state["pos_embed"].float(), grid, resize))
    if _longer_or_shorter("time_embed", state, own):
        fit("time_embed", resize_time_embed(state["time_embed"].float(), vit.num_frames))
    state = _drop_other_head(state, own, fate)
    return state | _image_start(state, vit, own, fate)


def _longer_or_shorter(key: str, state: StateDict, own: Mapping[str, Tensor]) -> bool:
    """Whether an embedding (1, L, D) differs from the model's in its length L alone."""
    if key not in state or key not in own:
        return False
    length, own_length = state[key].shape[1:2], own[key].shape[1:2]
    return length != own_length and state[key].shape[::2] == own[key].shape[::2]


def _drop_other_head(
    state: StateDict, own: Mapping[str, Tensor], fate: dict[str, list[str]]
) -> StateDict:
    """Without the file's head if it has one for other classes; the model's own then stays."""
    heads = [key for key in state if key.startswith("head.")]
    wanted = [key for key in own if key.startswith("head.")]
    if heads and wanted:
        classes = {state[key].shape[:1] for key in heads}
        if classes == {own[key].shape[:1] for key in wanted}:
            return state  # for as many classes, so it has to fit
    fate["unexpected"] += heads
    fate["missing"] += wanted
    return {key: value for key, value in state.items() if key not in heads}


def _image_start(
    state: StateDict, vit: Any, own: Mapping[str, Tensor], fate: dict[str, list[str]]
) -> StateDict:
    """What a file without this scheme's new submodules lacks: copies, and zeros to start from."""
    new = {part for block in vit.blocks for part in (*block.image_init, *block.zero_init)}
    if any(key.startswith("blocks.") and not new.isdisjoint(key.split(".")) for key in state):
        return {}  # part of a video model: what it lacks is an error, not a start
    start: StateDict = {}
    if "time_embed" in own and "time_embed" not in state:
        start["time_embed"] = torch.zeros_like(own["time_embed"])
        fate["zeroed"].append("time_embed")
    for i, block in enumerate(vit.blocks):
        for inner in block.state_dict():
            part, _, tail = inner.partition(".")
            key, image = f"blocks.{i}.{inner}", f"blocks.{i}.{block.image_init.get(part)}.{tail}"
            if part in block.zero_init:
                start[key] = torch.zeros_like(own[key])
                fate["zeroed"].append(key)
            elif image in state:
                start[key] = state[image].clone()
                fate["copied"].append(key)
    return start


def _check(
    state: StateDict, own: Mapping[str, Tensor], found: StateDict, missing: list[str]
) -> None:
    """Raises on anything unexplained, in one line for all of it."""
    wrong = differences({key: value for key, value in own.items() if key not in missing}, state)
    if wrong:
        theirs, ours = _describe(found), _describe(own)
        looks = "" if theirs == ours else f": they look like {theirs}, the model is {ours}"
        raise ValueError(
            f"not weights of this model{looks} ({len(wrong)} entries differ): " + "; ".join(wrong)
        )


def _describe(state: Mapping[str, Tensor]) -> str:
    """What a set of names and shapes looks like, in words that lead to the key to change."""
    if any("attention.attention.qkv" in key or "encoder.layer." in key for key in state):
        return "a Hugging Face model"
    if any("transformer_layers." in key for key in state):
        return "an mmaction2 model"
    if any("layer1.0.conv" in key for key in state):
        return "a ResNet"
    if "cls_token" not in state or _PATCH not in state:
        return "something that isn't a ViT"
    parts = {key.split(".")[2] for key in state if re.match(r"blocks\.\d+\.", key)}
    schemes = [
        name
        for name, block in ATTENTION_REGISTRY
        if block.one_sequence_per_clip == ("time_embed" in state)
        and {"norm1", "attn", "norm2", "mlp", *block.image_init, *block.zero_init} == parts
    ]
    scheme = " or ".join(schemes) or f"blocks of {', '.join(sorted(parts))}"
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    sizes = f"EMBED_DIM {state['cls_token'].shape[-1]}, DEPTH {depth}"
    if state[_PATCH].ndim == 4:
        sizes += f", PATCH_SIZE {state[_PATCH].shape[-1]}"
    return f"a ViT with {scheme} ({sizes})"
