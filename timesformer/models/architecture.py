"""What a model is made of: one field for each knob, with its configuration key and its meaning.

Nothing else has a list of the knobs. A config becomes an `Architecture` and back, a constructor
takes from it what its signature names, and every checkpoint and saved folder carries it whole. A
new knob is one field here, its key in `config/defaults.py`, and its use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any

from timesformer.config.allowed import CHOICES, RANGES
from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.utils.errors import ConfigError
from timesformer.utils.text import did_you_mean

NAMED_SIZES: dict[str, tuple[int, int, int]] = {
    "vit_tiny_patch16_224": (192, 12, 3),
    "vit_small_patch16_224": (384, 12, 6),
    "vit_large_patch16_224": (1024, 24, 16),
}
"""Width, depth and heads of the models whose name says them, whatever the config does."""

TEMPORAL_DEPTHS: dict[str, int] = {"vivit_factorised_encoder": 4, "vtn": 3}
"""Blocks over time of the models that have such, in their papers."""

VIT_BASE_SIZES = (768, 12, 12)  # those of a config that says none

_SIZES = ("embed_dim", "depth", "num_heads")

_DEFAULTS = dict(get_cfg().leaves())


def _knob(key: str, meaning: str) -> Any:
    """Declare a field: its key in the config, whose default is the field's, and its meaning."""
    return field(default=_DEFAULTS[key], metadata={"key": key, "meaning": meaning})


@dataclass(frozen=True)
class Architecture:
    """The knobs of a model, each checked by itself when it is made.

    A model whose name says its size has that size, whatever is said beside it.

    Raises:
        ValueError: a value of the wrong kind or out of its range; the message names the field.
    """

    model: str = _knob(
        "MODEL.MODEL_NAME",
        "registered model; vit_base_patch16_224 takes all sizes below, others know some themselves",
    )
    num_classes: int = _knob("MODEL.NUM_CLASSES", "classes K; 0 leaves the head out")
    img_size: int | tuple[int, int] = _knob(
        "DATA.TRAIN_CROP_SIZE",
        "frame side in pixels, or (H, W). Other sizes work too: pos_embed is resized",
    )
    num_frames: int = _knob(
        "DATA.NUM_FRAMES",
        "frames T of the stored time_embed. Other T work too: it is resized",
    )
    attention_type: str = _knob(
        "TIMESFORMER.ATTENTION_TYPE",
        "name of a registered scheme: divided_space_time, joint_space_time, space_only, …",
    )
    patch_size: int = _knob("TIMESFORMER.PATCH_SIZE", "patch side P in pixels")
    tubelet_size: int = _knob(
        "TIMESFORMER.TUBELET_SIZE",
        "frames t that a token covers (ViViT, arXiv 2103.15691, §3.2); T is a multiple of it",
    )
    embed_dim: int = _knob("TIMESFORMER.EMBED_DIM", "embedding width D of a token")
    depth: int = _knob("TIMESFORMER.DEPTH", "number of blocks")
    temporal_depth: int = _knob(
        "TIMESFORMER.TEMPORAL_DEPTH",
        "blocks over time that follow the ViT of each frame, in the models that have such: "
        "vivit_factorised_encoder (ViViT's L_t, arXiv 2103.15691, Table 3) and vtn; 0 averages the "
        "frames, -1 is what the model's paper has, 4 and 3",
    )
    num_heads: int = _knob("TIMESFORMER.NUM_HEADS", "heads of every attention; divides D")
    mlp_ratio: float = _knob("TIMESFORMER.MLP_RATIO", "hidden width of the MLPs over D")
    pos_embed_type: str = _knob(
        "TIMESFORMER.POS_EMBED",
        "what tokens know of their place (paper, Table 4): space_time (pos_embed and time_embed), "
        "space (pos_embed alone), none",
    )
    cls_in_time: bool = _knob(
        "TIMESFORMER.CLS_IN_TIME",
        "CLS is a key in temporal attention (paper, Eq. 13), which the published model leaves out; "
        "for schemes that know the option",
    )
    local_window: str = _knob(
        "TIMESFORMER.LOCAL_WINDOW",
        "what a patch sees in the local step of sparse_local_global: its quadrant of the frame, or "
        "a window of half the height and width that is centred on it, at twice the cost",
    )
    drop_path_rate: float = _knob(
        "TIMESFORMER.DROP_PATH_RATE",
        "probability that the last block's branches are skipped in training; it rises linearly "
        "from 0 over the depth",
    )
    init: str = _knob(
        "TIMESFORMER.INIT",
        'fresh weights. "image", as published, expects image weights to follow: time_embed 0, '
        'pos_embed and Linear weights of std .02. "scratch" is for training without them: '
        "sinusoidal time_embed of unit amplitude, pos_embed of std .5, Linear weights of std "
        "1/sqrt(inputs). Without these a small model sits for many epochs at knowing the axis of a "
        "motion and not its direction (docs/synthetic.md)",
    )
    time_embed_amplitude: float = _knob(
        "TIMESFORMER.TIME_EMBED_AMPLITUDE",
        "amplitude of the sines that time_embed starts as where no weights give it; 0, published, "
        "starts it at zero; -1 is what init says: 0 for image, 1 for scratch. From image weights a "
        "model learns the order of time sooner with about twice the std of its patch tokens "
        "(docs/synthetic.md)",
    )
    width: float = _knob(
        "CNN.WIDTH",
        "channels of every layer of a 3D CNN (slowfast_r50, slow_r50, i3d_r50, x3d_m) over the "
        "published ones; below 1 for small data and few cores",
    )
    act_checkpoint: bool = _knob(
        "TIMESFORMER.ACT_CHECKPOINT",
        "recompute each block's activations in the backward pass: less memory, about a third more "
        "time",
    )

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = _checked(knob, getattr(self, knob.name))
            object.__setattr__(self, knob.name, value)
        asked = (self.embed_dim, self.depth, self.num_heads)
        sizes = NAMED_SIZES.get(self.model, asked)
        if asked not in (sizes, VIT_BASE_SIZES):
            raise ValueError(
                f"{self.model} is of width, depth, heads {sizes}, not {asked}: leave these out, or "
                "take vit_base_patch16_224, which has any size"
            )
        for name, size in zip(_SIZES, sizes, strict=True):
            object.__setattr__(self, name, size)
        if self.temporal_depth < 0:
            depth = TEMPORAL_DEPTHS.get(self.model, self.temporal_depth)
            object.__setattr__(self, "temporal_depth", depth)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, model: str = "") -> Architecture:
        """Read every knob's key of a config.

        Args:
            cfg: the config.
            model: the registered model, if it isn't MODEL.MODEL_NAME.

        Raises:
            ConfigError: the model has sizes of its own, and the config asks for others; or a value
                that can't be.
        """
        keys = dict(cfg.leaves()) | ({"MODEL.MODEL_NAME": model} if model else {})
        try:
            return cls(**_knobs_in(keys))
        except ValueError as error:
            raise ConfigError(f"MODEL.MODEL_NAME, TIMESFORMER.*: {error}") from error

    def to_cfg(self) -> CfgNode:
        """Return a config that makes this model; of all else it has the defaults.

        It is for the registry, not for `validate.check`: img_size may be (H, W), which no file can
        say.
        """
        cfg = get_cfg()
        for knob in fields(self):
            group, _, key = knob.metadata["key"].partition(".")
            cfg[group][key] = getattr(self, knob.name)
        return cfg

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Architecture:
        """Read what `to_json` wrote; a knob that it doesn't name has its default.

        Raises:
            ValueError: a knob isn't known here, or a value is of the wrong kind.
        """
        known = {knob.name for knob in fields(cls)}
        if unknown := sorted(str(name) for name in said if name not in known):
            raise ValueError(
                f"the architecture has {unknown[0]}, which isn't known here: was it written by a "
                "newer version?"
            )
        return cls(**said)

    def to_json(self) -> dict[str, Any]:
        """Return all knobs as plain values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def changed(self, who: str, changes: Mapping[str, Any]) -> Architecture:
        """Return it with other values for some knobs.

        Args:
            who: what begins messages.
            changes: values by name.

        Raises:
            ConfigError: there is no such knob, or the value is of the wrong kind.
        """
        names = [knob.name for knob in fields(self) if knob.name != "model"]  # that one is chosen
        if unknown := changes.keys() - set(names):
            hint = did_you_mean(min(unknown), names) or f"; there are {', '.join(names)}"
            raise ConfigError(f"{who}: no argument {min(unknown)!r}{hint}")
        try:
            changed = replace(self, **changes)
        except ValueError as error:
            raise ConfigError(f"{who}: {error}") from error
        if lost := [n for n in _SIZES if n in changes and getattr(changed, n) != changes[n]]:
            raise ConfigError(f"{who}: {self.model} knows its own {lost[0]}: leave it out")
        return changed

    def arguments_for(self, constructor: Callable[..., Any]) -> dict[str, Any]:
        """Return the knobs that a constructor's signature names."""
        return {name: getattr(self, name) for name in _named(constructor)}


def knobs_of(constructor: Callable[..., Any]) -> frozenset[str]:
    """Return the knobs of a model that is made by a constructor: `model`, and what that names."""
    return frozenset({"model", *_named(constructor)})


def _named(constructor: Callable[..., Any]) -> list[str]:
    taken = inspect.signature(constructor).parameters
    return [knob.name for knob in fields(Architecture) if knob.name in taken]


KNOBS = frozenset(knob.name for knob in fields(Architecture))

_HEAD, _RAISES = inspect.cleandoc(Architecture.__doc__ or "").split("\nRaises:")
Architecture.__doc__ = "\n".join(
    [
        f"{_HEAD}\nAttributes:",
        *(
            f"    {f.name}: {f.metadata['meaning']} ({f.metadata['key']})."
            for f in fields(Architecture)
        ),
        f"\nRaises:{_RAISES}",
    ]
)


def as_arguments(message: str) -> str:
    """Return what a message says of keys in the words of Python: DATA.NUM_FRAMES is num_frames."""
    for knob in fields(Architecture):
        message = message.replace(knob.metadata["key"], knob.name)
    return message


def told_by_config(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return by name the knobs that a checkpoint's config says; it needn't say all of them.

    What a model's name says of its size goes before the keys, which have ViT-B's then.

    Args:
        keys: values by full key; published configs have other keys beside ours.
    """
    said = _knobs_in(keys)
    return said | dict(zip(_SIZES, NAMED_SIZES.get(str(said.get("model")), ()), strict=False))


def _knobs_in(keys: Mapping[str, Any]) -> dict[str, Any]:
    of = {knob.name: knob.metadata["key"] for knob in fields(Architecture)}
    return {name: keys[key] for name, key in of.items() if key in keys}


def _checked(knob: Field[Any], value: Any) -> Any:
    """Return a value of its knob's kind and in its range, which are those of its key."""
    if knob.name == "img_size" and isinstance(value, list | tuple) and len(value) == 2:
        return tuple(_checked(knob, side) for side in value)
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    kind: type = type(knob.default)
    key, must_be = knob.metadata["key"], ""
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        must_be = kinds[kind]
    elif value not in CHOICES.get(key, (value,)):
        must_be = f"one of {', '.join(CHOICES[key])}"
    elif knob.name != "num_classes" or value:  # 0 classes: no head
        must_be = next(
            (w for w, fits, keys in RANGES if key in keys.split() and not fits(value)), ""
        )
        if must_be and knob.name == "num_classes":
            must_be += ", or 0 for no head"
    if must_be:
        raise ValueError(f"{knob.name} must be {must_be}, not {value!r:.60}")
    return kind(value)
