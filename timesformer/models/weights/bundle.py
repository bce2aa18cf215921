"""Weights together with what they need to be of use: architecture, preprocessing, class names.

`read_bundle` makes one from any source, `make_from` a model of it; `save.py` writes them.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from timesformer.config.allowed import HUBS
from timesformer.models.architecture import NAMED_SIZES, Architecture, told_by_config
from timesformer.models.attention.layers import hidden_width
from timesformer.models.weights.adapt import Resizing, StateDict, with_sines
from timesformer.models.weights.describe import (
    ON_ANOTHER_LAYER,
    PATCH,
    frames_apart,
    guesses,
    sizes_of,
    told_by_shapes,
    unfit_head,
)
from timesformer.models.weights.folders import READ_OF_RUN
from timesformer.models.weights.formats import IGNORED, is_googles, native_state, pyslowfast
from timesformer.models.weights.load import LoadReport, load_native
from timesformer.models.weights.said import check_config, preprocessing_of, run_config
from timesformer.models.weights.sources import read_weights
from timesformer.utils.errors import ConfigError, FetchError, WeightsError
from timesformer.utils.tensors import check_tensors

Model = TypeVar("Model", bound=nn.Module)

logger = logging.getLogger(__name__)

# What torch and the registries raise for sizes and names that can't be.
_CANT_BE = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
_SUFFIXES = (".pyth", ".pth", ".pt", ".bin", ".safetensors", ".npz", ".pkl")
_CLIP = ("num_frames", "img_size")
# nn.init's others, trunc_normal_ among them, are made of the first two.
_DRAWING = {
    *(Tensor.normal_, Tensor.uniform_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_),
}


@dataclass(frozen=True)
class Bundle:
    """A model's weights and what belongs to them.

    Attributes:
        state: weights under the native names, those of `VisionTransformer`, or those of another
            model.
        architecture: what the model is made of.
        preprocessing: mean and std of each channel for pixels in [0, 1], in the order of
            `channel_order` ("RGB" or "BGR"); perhaps short_side and sampling_rate. None: unknown.
        class_names: in label order, or ().
        googles: they are in Google's layout, see `Resizing`.
        file: the checkpoint that was read of a run's folder; "" of another source.
    """

    state: StateDict
    architecture: Architecture
    preprocessing: dict[str, Any] | None = None
    class_names: tuple[str, ...] = ()
    googles: bool = False
    file: str = ""


def read_bundle(source: str | Path, weights: str | None = None, **hints: Any) -> Bundle:
    """Read a model's weights, and all that the source says about them.

    The architecture is what the source stores; in its absence, what its config and the shapes of
    its weights say.

    Args:
        source: whatever `read_weights` takes.
        weights: which of a run's checkpoint, raw or ema; None as `read_weights` says.
        **hints: knobs that hold where the source doesn't say them: num_heads, which weights don't
            tell, img_size, attention_type.

    Raises:
        WeightsError: if it can't be read, or is no model that could be built here.
    """
    return bundle_of(read_weights(source, weights), source, **hints)


def bundle_of(content: Mapping[str, Any], source: str | Path, **hints: Any) -> Bundle:
    """Do what `read_bundle` does with what `read_weights` read; messages call it `source`."""
    googles = is_googles(content)
    try:
        state, _ = native_state(content)
        check_config(content, state)
        if head := unfit_head(state):
            logger.warning(
                "%s: its head is left out: it was trained on %s", source, ON_ANOTHER_LAYER
            )
        state = {
            key: value
            for key, value in state.items()
            if not key.startswith(IGNORED) and key not in head
        }
        check_tensors(source, state)
        if googles and "pos_embed" not in state and state[PATCH].ndim == 4:
            state = _with_sines(state, hints)
        architecture = _architecture(content, state, hints)
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{source}: {error}") from error
    names = tuple(content.get("class_names") or ())
    file = str(content.get(READ_OF_RUN, ""))
    return Bundle(state, architecture, preprocessing_of(content), names, googles, file)


def make_from(
    source: str | Path, make: Callable[[Architecture], Model], overrides: Mapping[str, Any]
) -> Model:
    """Make the model that weights are of, and load them.

    Args:
        source: whatever `read_weights` takes, or the `ORG/NAME` of a Hugging Face model.
        make: makes a model with fresh weights.
        overrides: knobs to change; what doesn't fit the weights is resized, copied or left fresh.

    Returns:
        The model in evaluation mode, with `preprocessing` and `class_names`, which are empty where
        the source doesn't tell.

    Raises:
        WeightsError: if there are no such weights, or they aren't this model's.
        ConfigError: if an override can't work.
    """
    Architecture().changed(str(source), overrides)  # their names and kinds, before a file is read
    name = _hub_id(str(source))
    try:
        bundle = read_bundle(name, **overrides)
    except FetchError as error:
        if name == str(source):
            raise
        raise FetchError(f"{source}: no such file or folder here, and {error}") from error
    architecture = bundle.architecture.changed(str(source), overrides)
    try:
        with contextlib.nullcontext() if overrides else _Undrawn():
            model = make(architecture)
    except _CANT_BE as error:
        if not overrides:
            raise WeightsError(f"{source}: can't make its model: {error!s:.500}") from error
        with_ = ", ".join(overrides)
        raise ConfigError(f"{source}: can't make its model with {with_}: {error!s:.500}") from error
    report = load_native(model, bundle.state, str(source), Resizing(googles=bundle.googles))
    logger.info("%s", report.summary())
    invented = [*report.zeroed, *report.copied, *report.missing]
    if not overrides and (absent := [*invented, *report.resized]):
        raise WeightsError(f"{source}: its architecture asks for weights it lacks: {absent[0]}, …")
    names = () if has_fresh_head(model, report) else bundle.class_names
    attach(model, resized(bundle.preprocessing or {}, overrides), names)
    return model.eval()


class _Undrawn(TorchFunctionMode):
    """Gives parameters zeros for random numbers where all are about to be read.

    Drawing them takes longer than reading. Buffers are drawn: not all are in a file. A mode is of
    one thread: models that others make meanwhile are drawn.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                tensor.detach().zero_()
                return tensor
        return func(*args, **kwargs)


def has_fresh_head(model: nn.Module, report: LoadReport) -> bool:
    """Whether the head isn't that of the weights that were loaded."""
    head = f"{getattr(model, 'classifier_name', 'head')}."
    return any(name.startswith(head) for name in report.missing)


def resized(preprocessing: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return how clips are made for a model of other sizes than its weights were trained at."""
    said = dict(preprocessing)
    if "num_frames" in overrides and "num_frames" in said:
        said["num_frames"] = overrides["num_frames"]
    if "img_size" in overrides:
        for name in said.keys() & {"crop_size", "short_side"}:
            said[name] = overrides["img_size"]
            if not isinstance(said[name], int):
                del said[name]
    return said


def attach(
    model: Any, preprocessing: Mapping[str, Any] | None, class_names: tuple[str, ...]
) -> None:
    """Give a model what belongs to its weights; names only while they fit its head."""
    model.preprocessing = dict(preprocessing or {})
    classes = model.architecture.num_classes
    if class_names and len(class_names) != classes:
        logger.warning(
            "%d class names for a head of %d classes: they are left out", len(class_names), classes
        )
        class_names = ()
    model.class_names = class_names


def _with_sines(state: StateDict, hints: Mapping[str, Any]) -> StateDict:
    """Add positions that are computed, not stored, for the size that is asked for.

    Raises:
        ValueError: none is.
    """
    size = hints.get("img_size")
    if size is None:
        raise ValueError(
            "its positions are sines that are computed, not stored (big_vision's sincos2d), so "
            "nothing says the size of its images: say img_size"
        )
    width, _, side, _ = state[PATCH].shape
    side = hints.get("patch_size", side)
    height, breadth = (size, size) if isinstance(size, int) else size
    return with_sines(state, (height // side, breadth // side), width)


def _architecture(
    content: Mapping[str, Any], state: StateDict, hints: Mapping[str, Any]
) -> Architecture:
    """Return what the file stores; what it doesn't, its config and the shapes of weights tell.

    Raises:
        ValueError: what it stores isn't what its weights are of.
    """
    stored = content.get("architecture")
    # `arguments`: those of TimeSformer, in folders that were written before the architecture was.
    said = told_by_config(run_config(content)) | dict(content.get("arguments") or {})
    if stored is not None:
        if not isinstance(stored, Mapping) or not stored:
            raise ValueError(f"its architecture is {stored!r:.60}, not the knobs of a model")
        said |= dict(stored)
    if stored is None and pyslowfast.matches(state):
        said |= pyslowfast.told(state, {n: hints[n] for n in _CLIP if n in hints} | said)
    # Or it is nothing that is known. Swin has a patch_embed as well, but no `blocks`.
    may_be_vit = all(sizes_of(state)) or "model" not in said
    if may_be_vit and stored is None:
        _forget_name(said, state)
    said = {**_needed(hints), **said}
    if may_be_vit:
        said |= guesses(state, said, hints.get("attention_type"))
        told = told_by_shapes(state, str(said["attention_type"]))
        if stored is not None:
            _compare(said, told)
        elif "arguments" in content:
            said = told | said
        else:
            if told["pos_embed_type"] == "space" and frames_apart(state, said):
                raise ValueError(f"there is no time_embed, which {said['attention_type']} has")
            said |= told
    if "pos_embed" in state and "img_size" not in said:
        raise ValueError("pos_embed isn't of square frames, and nothing says their img_size")
    architecture = Architecture.from_json(said)
    if architecture.embed_dim % architecture.num_heads:
        raise ValueError(
            f"num_heads {architecture.num_heads} doesn't divide the width "
            f"{architecture.embed_dim}; say how many heads it has"
        )
    return architecture


def _needed(hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of all overrides that a reader may need: what weights don't tell."""
    return {name: hints[name] for name in ("num_heads", "img_size") if name in hints}


def _forget_name(said: dict[str, Any], state: StateDict) -> None:
    """Drop what a config calls a ViT, with the sizes that follow, unless the weights bear it out.

    Whatever it was called where it was trained, it is a TimeSformer of the size of its weights.
    """
    name = said.pop("model", None)
    if name in NAMED_SIZES:
        width, depth, heads = NAMED_SIZES[name]
        if (width, depth) == sizes_of(state):
            said |= {"model": name, "num_heads": heads}
        else:
            said.pop("num_heads", None)


def _compare(said: dict[str, Any], told: Mapping[str, Any]) -> None:
    """Hold what a file says of its model against its weights; take from these what it doesn't say.

    Raises:
        ValueError: they differ.
    """
    for name, value in told.items():
        given = said.setdefault(name, value)
        if isinstance(given, list):
            continue  # frames that aren't square: loading compares shapes
        if name == "mlp_ratio" and isinstance(given, int | float):
            width = told["embed_dim"]  # a ratio that isn't whole is compared by what it gives
            fits = math.isfinite(width * given)
            if fits and hidden_width(width, given) == hidden_width(width, value):
                continue
        if given != value:
            raise ValueError(f"its architecture says {name} {given!r:.60}, its weights {value}")


def _hub_id(name: str) -> str:
    """`ORG/NAME` that is no path, and can't be meant as one -> hf/ORG/NAME."""
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    is_id = is_id and not {":", "\\"} & {*name}  # a drive of Windows
    is_place = name.startswith(HUBS) or name.endswith(_SUFFIXES) or Path(name).exists()
    return f"hf/{name}" if is_id and not is_place else name
