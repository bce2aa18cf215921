"""Loading weights that somebody else made: read, normalise names, adapt, load, report.

Every weight of the model and every entry of the file is accounted for in a `LoadReport`; what
can't be explained is an error, and the model is then left as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from timesformer.models.weights import formats
from timesformer.models.weights.adapt import Fate, Resizing, StateDict, adapt, drop_other_head
from timesformer.models.weights.describe import PATCH, describe
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import bare, differences
from timesformer.utils.errors import WeightsError

logger = logging.getLogger(__name__)

_CONTAINERS = ("model_state", "state_dict", "model", "module")
_PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight; names are those of the `VisionTransformer`, or of other models.

    A weight of the model is in exactly one of `loaded`, `resized`, `copied`, `zeroed`, `missing`.

    Attributes:
        source: what the weights were read from.
        loaded: taken as they are.
        resized: taken, and fitted to another size.
        copied: made from other weights of the file (temporal from spatial attention).
        zeroed: not in an image model, and set to zero so that training starts there.
        missing: not in the file and left as initialised (the head, where the file has none or one
            for other classes; time_embed that starts as sines; CLS, where the file's model pools
            instead; what stands around the image part of a model).
        unexpected: in the file, with no place in the model (a head for other classes; CLS and its
            position, for a model without).
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
    time_embed_resize: str = "nearest",
    tubelet_init: str = "central",
    name: str = "a state dict",
) -> LoadReport:
    """Loads image or video weights into a model, in place.

    An image ViT starts a video model as the paper does: new attention is copied from the image's,
    the layers that end a new step and time_embed are zero, so a still video gives the image
    model's output.

    Args:
        model: a `VisionTransformer`, or a model that holds one as `.model`, wrapped or not; or
            any other registered model, whose weights go by name. Where that has an `image_part`,
            an image ViT's weights are loaded into it.
        source: whatever `read_weights` reads; or the content of a file.
        pos_embed_resize: how pos_embed is fitted to another grid: "bicubic" or "bilinear" in two
            dimensions, or "legacy", the published behaviour: 1-D nearest over the flattened patch
            sequence, which scrambles rows and columns; only for scoring as old runs did.
        time_embed_resize: how time_embed is fitted to other frame counts: "nearest", as
            published, or "linear".
        tubelet_init: how an image's patch kernel becomes one of several frames: "central" or
            "average", see `Resizing`.
        name: what messages call a `source` that is the content of a file.

    Returns:
        What happened to every weight; it is logged too.

    Raises:
        WeightsError: if weights can't be read or fetched, or some can't be explained; the message
            lists all of those.
    """
    resizing = Resizing(pos_embed_resize, time_embed_resize, tubelet_init)
    if isinstance(source, Mapping):
        content: Mapping[str, Any] = source
    else:
        name, content = str(source), read_weights(source)
    target: Any = bare(model)
    inner = getattr(target, "model", target)
    fate: Fate = {field.name: [] for field in fields(LoadReport)[1:]}
    try:
        found = native_state(content, fate["ignored"])
        if hasattr(inner, "attention_type"):  # a VisionTransformer
            _load_vit(inner, found, fate, resizing)
        else:
            _load_other(target, found, fate, resizing)
    except ValueError as error:
        raise WeightsError(f"{name}: {error}") from error
    report = LoadReport(name, **{what: tuple(names) for what, names in fate.items()})
    logger.info("%s", report.summary())
    return report


def native_state(content: Mapping[str, Any], ignored: list[str] | None = None) -> StateDict:
    """The weights in the content of a file, under native names.

    Args:
        content: what `read_weights` returns: a state dict, or one inside containers.
        ignored: names of entries that aren't weights are added to it.

    Raises:
        ValueError: if there are no weights, or two of one name.
    """
    return formats.to_native(_normalise(content, [] if ignored is None else ignored))


def _normalise(content: Mapping[str, Any], ignored: list[str]) -> StateDict:
    """Unpacks containers and strips wrappers' prefixes: the published names remain."""
    while inner := [key for key in _CONTAINERS if isinstance(content.get(key), Mapping)]:
        content = content[inner[0]]
    state: StateDict = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            ignored.append(str(key))
            continue
        name = _bare_name(str(key))
        if name in state:
            raise ValueError(f"holds {name} twice, once as {key}")
        state[name] = value
    if not state:
        raise ValueError(f"holds no weights, only {', '.join(ignored[:8]) or 'nothing'}")
    return state


def _bare_name(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def _load_vit(vit: Any, found: StateDict, fate: Fate, resizing: Resizing) -> None:
    """Into a `VisionTransformer`, fitted to it."""
    state = adapt(found, vit, fate, resizing)
    _check(state, vit.state_dict(), found, fate["missing"])
    vit.load_state_dict(state, strict=False)
    _note_loaded(state, vit.state_dict(), fate)


def _load_other(model: Any, found: StateDict, fate: Fate, resizing: Resizing) -> None:
    """By name, or an image ViT's weights into the part of the model that is one."""
    own: dict[str, Tensor] = model.state_dict()
    part: Callable[[], tuple[str, Any]] | None = getattr(model, "image_part", None)
    if part is not None:
        prefix, vit = part()
        if PATCH in found and not any(key.startswith(prefix) for key in found):
            _load_vit(vit, found, fate, resizing)
            for what in ("loaded", "resized", "copied", "zeroed", "missing"):
                fate[what] = [prefix + key for key in fate[what]]
            fate["missing"] += [key for key in own if not key.startswith(prefix)]
            return
    names = {_bare_name(key): key for key in own}
    state = {names.get(key, key): value for key, value in found.items()}
    if hasattr(model, "fit_positions"):
        fitted = model.fit_positions(state)
        fate["resized"] += fitted
        state |= fitted
    if classifier := getattr(model, "classifier_name", ""):
        state = drop_other_head(state, own, classifier, fate)
    _check(state, own, found, fate["missing"])
    model.load_state_dict(state, strict=False)
    _note_loaded(state, own, fate)


def _note_loaded(state: StateDict, own: Mapping[str, Tensor], fate: Fate) -> None:
    explained = {*fate["resized"], *fate["copied"], *fate["zeroed"]}
    fate["loaded"] = [key for key in own if key in state and key not in explained]


def _check(
    state: StateDict, own: Mapping[str, Tensor], found: StateDict, missing: list[str]
) -> None:
    """Raises on anything unexplained, in one line for all of it."""
    wrong = differences({key: value for key, value in own.items() if key not in missing}, state)
    if wrong:
        theirs, ours = describe(found), describe(own)
        looks = "" if theirs == ours else f": they look like {theirs}, the model is {ours}"
        raise ValueError(
            f"not weights of this model{looks} ({len(wrong)} entries differ): " + "; ".join(wrong)
        )
