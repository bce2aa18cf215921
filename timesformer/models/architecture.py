"""What a model is made of: one field for each knob, with its configuration key and its meaning.

Nothing else has a list of the knobs. A config becomes an `Architecture` and back, a constructor
takes from it what its signature names, and every checkpoint and saved folder carries it whole. A
new knob is one field here, its key in `config/defaults.py`, and its use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from inspect import signature
from typing import Any

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

_SIZES = ("embed_dim", "depth", "num_heads")
_DEFAULTS = dict(get_cfg().leaves())


def knob(key: str, meaning: str) -> Any:
    """Declare a field: its key in the config, whose default is the field's, and its meaning."""
    return field(default=_DEFAULTS[key], metadata={"key": key, "meaning": meaning})


@dataclass(frozen=True)
class Architecture:
    """The knobs of a model, checked for their kind when it is made.

    Raises:
        ValueError: a value is of the wrong kind; the message names the field.
    """

    model: str = knob(
        "MODEL.MODEL_NAME",
        "registered model; vit_base_patch16_224 takes all sizes below, others know some themselves",
    )
    num_classes: int = knob("MODEL.NUM_CLASSES", "classes K; 0 leaves the head out")
    img_size: int | tuple[int, int] = knob(
        "DATA.TRAIN_CROP_SIZE",
        "frame side in pixels, or (H, W). Other sizes work too: pos_embed is resized",
    )
    num_frames: int = knob(
        "DATA.NUM_FRAMES",
        "frames T of the stored time_embed. Other T work too: it is resized",
    )
    attention_type: str = knob(
        "TIMESFORMER.ATTENTION_TYPE",
        "name of a registered scheme: divided_space_time, joint_space_time, space_only, …",
    )
    patch_size: int = knob("TIMESFORMER.PATCH_SIZE", "patch side P in pixels")
    tubelet_size: int = knob(
        "TIMESFORMER.TUBELET_SIZE",
        "frames t that a token covers (ViViT, arXiv 2103.15691, §3.2); T is a multiple of it",
    )
    embed_dim: int = knob("TIMESFORMER.EMBED_DIM", "embedding width D of a token")
    depth: int = knob("TIMESFORMER.DEPTH", "number of blocks")
    num_heads: int = knob("TIMESFORMER.NUM_HEADS", "heads of every attention; divides D")
    mlp_ratio: float = knob("TIMESFORMER.MLP_RATIO", "hidden width of the MLPs over D")
    pos_embed_type: str = knob(
        "TIMESFORMER.POS_EMBED",
        "what tokens know of their place (paper, Table 4): space_time (pos_embed and time_embed), "
        "space (pos_embed alone), none",
    )
    cls_in_time: bool = knob(
        "TIMESFORMER.CLS_IN_TIME",
        "CLS is a key in temporal attention (paper, Eq. 13), which the published model leaves out; "
        "for schemes that know the option",
    )
    drop_path_rate: float = knob(
        "TIMESFORMER.DROP_PATH_RATE",
        "probability that the last block's branches are skipped in training; it rises linearly "
        "from 0 over the depth",
    )
    init: str = knob(
        "TIMESFORMER.INIT",
        'fresh weights. "image", as published, expects image weights to follow: time_embed 0, '
        'pos_embed and Linear weights of std .02. "scratch" is for training without them: '
        "sinusoidal time_embed of unit amplitude, pos_embed of std .5, Linear weights of std "
        "1/sqrt(inputs). Without these a small model sits for many epochs at knowing the axis of a "
        "motion and not its direction (docs/synthetic.md)",
    )
    time_embed_amplitude: float = knob(
        "TIMESFORMER.TIME_EMBED_AMPLITUDE",
        "amplitude of the sines that time_embed starts as where no weights give it; 0, published, "
        "starts it at zero; -1 is what init says: 0 for image, 1 for scratch. From image weights a "
        "model learns the order of time sooner with about twice the std of its patch tokens "
        "(docs/synthetic.md)",
    )
    act_checkpoint: bool = knob(
        "TIMESFORMER.ACT_CHECKPOINT",
        "recompute each block's activations in the backward pass: less memory, about a third more "
        "time",
    )

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = _checked(knob.name, getattr(self, knob.name), knob.default)
            object.__setattr__(self, knob.name, value)

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> Architecture:
        """Read every knob's key of a config; a model with a size of its own overrules the sizes.

        Raises:
            ConfigError: such a model, and the config asks for another size.
        """
        said = {f.name: _leaf(cfg, f.metadata["key"]) for f in fields(cls)}
        sizes, asked = NAMED_SIZES.get(said["model"]), tuple(said[name] for name in _SIZES)
        if sizes and asked not in (sizes, tuple(_default(name) for name in _SIZES)):
            raise ConfigError(
                f"MODEL.MODEL_NAME {said['model']} is of width, depth, heads {sizes}, but "
                f"TIMESFORMER.EMBED_DIM, DEPTH, NUM_HEADS say {asked}: leave these out, or set "
                "MODEL.MODEL_NAME vit_base_patch16_224, which takes them"
            )
        return cls(**said | named_sizes(said["model"]))

    def to_cfg(self) -> CfgNode:
        """Return a config that makes this model; of all else it has the defaults.

        It is for the registry, not for `validate.check`: img_size may be (H, W), which no file can
        say.
        """
        cfg = get_cfg()
        for knob in fields(self):
            *groups, name = knob.metadata["key"].split(".")
            node = cfg
            for group in groups:
                node = node[group]
            node[name] = getattr(self, knob.name)
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
        names = [knob.name for knob in fields(self)][1:]  # the model isn't changed but chosen
        if unknown := changes.keys() - set(names):
            hint = did_you_mean(min(unknown), names) or f"; there are {', '.join(names)}"
            raise ConfigError(f"{who}: no argument {min(unknown)!r}{hint}")
        try:
            return replace(self, **changes)
        except ValueError as error:
            raise ConfigError(f"{who}: {error}") from error

    def arguments_for(self, constructor: Callable[..., Any]) -> dict[str, Any]:
        """Return the knobs that a constructor's signature names."""
        taken = signature(constructor).parameters
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in taken}


Architecture.__doc__ = (Architecture.__doc__ or "").replace(
    "    Raises:",
    "    Attributes:\n"
    + "".join(
        f"        {f.name}: {f.metadata['meaning']} ({f.metadata['key']}).\n"
        for f in fields(Architecture)
    )
    + "\n    Raises:",
    1,
)


def named_sizes(model: str) -> dict[str, Any]:
    """Return the sizes that a model's name says, {} if it says none."""
    return dict(zip(_SIZES, NAMED_SIZES.get(model, ()), strict=False))


def from_config_text(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs that a checkpoint's config says, by name; it needn't say all of them.

    Args:
        keys: values by full key; published configs have other keys beside ours.
    """
    knobs = {knob.name: knob.metadata["key"] for knob in fields(Architecture)}
    said = {name: keys[key] for name, key in knobs.items() if key in keys}
    return said | named_sizes(str(said.get("model")))


def _leaf(cfg: CfgNode, key: str) -> Any:
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _default(name: str) -> Any:
    return Architecture.__dataclass_fields__[name].default


def _checked(name: str, value: Any, default: Any) -> Any:
    """Return a value of the default's kind."""
    if name == "img_size" and isinstance(value, list | tuple) and len(value) == 2:
        return tuple(_checked("a side of img_size", side, default) for side in value)
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    kind = type(default)
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {kinds[kind]}, not {value!r:.60}")
    return kind(value)
