"""Models by name, and models to and from folders, as users of timm and transformers know it.

    model = timesformer.create_model("timesformer_divST_8x32_224_K400", pretrained="k400.pyth")
    model = timesformer.TimeSformer.from_pretrained("facebook/timesformer-base-finetuned-k400")
    model.save_pretrained("my_model")

A model made here from weights or a recipe knows its `preprocessing` and `class_names`. Names are
either registered models (MODEL.MODEL_NAME), or recipes of the published release.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.weights.bundle import Bundle, read_bundle, write_safetensors
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.checkpoint import bare
from timesformer.utils.errors import ConfigError, WeightsError

if TYPE_CHECKING:  # these import this module
    from timesformer.models.vit import TimeSformer

_SUFFIXES = (".pyth", ".pth", ".pt", ".bin", ".safetensors", ".npz")

# Keyword of `create_model` -> key of the config that a registered model is made from.
_KEYS = {
    "num_classes": "MODEL.NUM_CLASSES",
    "img_size": "DATA.TRAIN_CROP_SIZE",
    "num_frames": "DATA.NUM_FRAMES",
    "attention_type": "TIMESFORMER.ATTENTION_TYPE",
    "patch_size": "TIMESFORMER.PATCH_SIZE",
    "embed_dim": "TIMESFORMER.EMBED_DIM",
    "depth": "TIMESFORMER.DEPTH",
    "num_heads": "TIMESFORMER.NUM_HEADS",
    "mlp_ratio": "TIMESFORMER.MLP_RATIO",
    "drop_path_rate": "TIMESFORMER.DROP_PATH_RATE",
    "init": "TIMESFORMER.INIT",
    "act_checkpoint": "TIMESFORMER.ACT_CHECKPOINT",
    "pos_embed_type": "TIMESFORMER.POS_EMBED",
    "tubelet_size": "TIMESFORMER.TUBELET_SIZE",
    "cls_in_time": "TIMESFORMER.CLS_IN_TIME",
    "time_embed_amplitude": "TIMESFORMER.TIME_EMBED_AMPLITUDE",
}


@dataclass(frozen=True)
class Recipe:
    """A recipe of the published release, which its checkpoints are of.

    Attributes:
        arguments: of `TimeSformer`.
        preprocessing: see `Bundle`.
        labels: name of the shipped list of classes.
    """

    arguments: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    labels: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order."""
        path = files("timesformer") / "datasets" / "labels" / f"{self.labels}.txt"
        return tuple(path.read_text(encoding="utf-8").splitlines())


def _recipe(data: str, frames: int, rate: int | None, size: int, scheme: str) -> Recipe:
    labels, classes = {
        "K400": ("kinetics400", 400),
        "K600": ("kinetics600", 600),
        "SSv2": ("ssv2", 174),
    }[data]
    preprocessing: dict[str, Any] = {
        "mean": [0.45] * 3,
        "std": [0.225] * 3,
        "channel_order": "BGR" if data == "SSv2" else "RGB",
        "short_side": size,  # tested on three crops of full height
    }
    if rate:  # frames of SSv2 are spread over the whole video instead
        preprocessing["sampling_rate"] = rate
    arguments = {
        "img_size": size,
        "num_classes": classes,
        "num_frames": frames,
        "attention_type": scheme,
    }
    return Recipe(arguments, preprocessing, labels)


_SCHEMES = {
    "divST": "divided_space_time",
    "jointST": "joint_space_time",
    "spaceOnly": "space_only",
}

RECIPES: dict[str, Recipe] = {
    **{
        f"timesformer_divST_{frames}x{rate}_{size}_{data}": _recipe(
            data, frames, rate, size, _SCHEMES["divST"]
        )
        for data in ("K400", "K600")
        for frames, rate, size in ((8, 32, 224), (16, 16, 448), (96, 4, 224))
    },
    **{
        f"timesformer_{short}_8x32_224_K400": _recipe("K400", 8, 32, 224, _SCHEMES[short])
        for short in ("jointST", "spaceOnly")
    },
    **{
        f"timesformer_divST_{frames}_{size}_SSv2": _recipe(
            "SSv2", frames, None, size, _SCHEMES["divST"]
        )
        for frames, size in ((8, 224), (16, 448), (64, 224))
    },
}
"""Architecture and preprocessing of the paper's models, under the names of their config files."""


def list_models(filter: str = "") -> list[str]:
    """Names that `create_model` knows, in alphabetical order.

    Args:
        filter: a pattern such as "*divST*K400"; a word without wildcards is looked for anywhere.
    """
    from timesformer.models import build  # noqa: F401  (registers the models)

    names = sorted([*(name for name, _ in MODEL_REGISTRY), *RECIPES])
    if not filter:
        return names
    pattern = filter if any(letter in filter for letter in "*?[") else f"*{filter}*"
    return fnmatch.filter(names, pattern)


def create_model(name: str, pretrained: str | Path = "", **overrides: Any) -> nn.Module:
    """Makes a model by name, with fresh weights unless some are given.

    Args:
        name: one of `list_models()`.
        pretrained: weights to load, whatever `load_pretrained` takes. A recipe of a published
            checkpoint brings its architecture and preprocessing, and no weights of its own.
        **overrides: arguments of `TimeSformer` to change, e.g. num_classes, num_frames,
            attention_type; for a baseline, those that it has.

    Returns:
        The model, in training mode as every fresh module.

    Raises:
        ConfigError: for an unknown name or override, or a value that can't work.
        WeightsError: if the weights can't be read or aren't this model's.
    """
    from timesformer.config.node import did_you_mean

    known = list_models()
    if name not in known:
        hint = did_you_mean(name, known) or "; timesformer.list_models() has the names"
        raise ConfigError(f"create_model: no model {name!r}{hint}")
    if unknown := overrides.keys() - _KEYS.keys():
        word = min(unknown)
        hint = did_you_mean(word, _KEYS) or f"; there are {', '.join(_KEYS)}"
        raise ConfigError(f"create_model: no argument {word!r}{hint}")
    model: Any
    try:
        if name in RECIPES:
            recipe = RECIPES[name]
            model = _time_sformer(dict(recipe.arguments) | overrides)
            _attach(model, dict(recipe.preprocessing), recipe.class_names)
        else:
            model = _registered(name, overrides)
    except (ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"create_model: {name}: {error}") from error
    if pretrained:
        load_pretrained(model, pretrained)
    return model


def _registered(name: str, overrides: Mapping[str, Any]) -> nn.Module:
    from timesformer.config.defaults import get_cfg
    from timesformer.models.build import make_model

    cfg = get_cfg()
    chosen = {_KEYS[word]: value for word, value in overrides.items()}
    cfg.merge_from_other_cfg(chosen | {"MODEL.MODEL_NAME": name})
    return make_model(cfg)


def _time_sformer(arguments: Mapping[str, Any]) -> TimeSformer:
    from timesformer.models.vit import TimeSformer

    return TimeSformer(**arguments)


def _attach(
    model: Any, preprocessing: Mapping[str, Any] | None, class_names: Sequence[str]
) -> None:
    """What belongs to the weights travels with the model; names only while they fit its head."""
    model.preprocessing = dict(preprocessing or {})
    fits = len(class_names) == model.model.num_classes
    model.class_names = tuple(class_names) if fits else ()


def from_pretrained(source: str | Path, **overrides: Any) -> TimeSformer:
    """Makes the model that weights are of, and loads them.

    Args:
        source: a file or folder, `timm/NAME`, `hf/ORG/NAME`, or just `ORG/NAME` of Hugging Face's
            hub.
        **overrides: arguments of `TimeSformer` to change; what doesn't fit the weights is resized,
            copied or left fresh, as the log says, e.g. num_classes=10 or num_frames=16.

    Returns:
        The model in evaluation mode, with `preprocessing` and `class_names`, which are empty where
        the source doesn't tell.

    Raises:
        WeightsError: if there are no such weights, or they aren't those of a TimeSformer or ViT.
        ConfigError: if an override can't work.
    """
    bundle = read_bundle(_source(str(source)))
    try:
        model = _time_sformer(bundle.arguments | overrides)
    except (ValueError, KeyError, TypeError) as error:
        what = "its arguments" if not overrides else f"with {', '.join(overrides)}"
        raise ConfigError(f"{source}: can't make the model, {what}: {error}") from error
    report = load_pretrained(model, bundle.state, name=str(source))
    head = {"head.weight", "head.bias"}
    if not overrides and (absent := [*report.zeroed, *report.copied, *report.missing]):
        raise WeightsError(f"{source}: its config.json asks for weights it lacks: {absent[0]}, …")
    fresh = head & set(report.missing)
    _attach(model, bundle.preprocessing, () if fresh else bundle.class_names)
    return model.eval()


def _source(name: str) -> str:
    """`ORG/NAME` that is no path, and can't be meant as one -> hf/ORG/NAME."""
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    is_hub = name.startswith(("timm/", "torchvision/", "hf/"))
    if is_id and not is_hub and not name.endswith(_SUFFIXES) and not Path(name).exists():
        return f"hf/{name}"
    return name


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes model.safetensors and config.json, which `from_pretrained` reads.

    Args:
        model: a `TimeSformer`, wrapped or not.
        folder: made when missing; files of these names in it are replaced.
        preprocessing: mean, std and channel_order of its input (see `Bundle`); what the model
            knows of it when None.
        class_names: in label order; those that the model knows when None.

    Raises:
        WeightsError: if it can't be written.
        ConfigError: if preprocessing or names don't make sense for the model.
    """
    target: Any = bare(model)
    preprocessing = preprocessing or getattr(target, "preprocessing", None) or None
    names = getattr(target, "class_names", ()) if class_names is None else class_names
    arguments = arguments_of(target)
    if names and len(names) != arguments["num_classes"]:
        raise ConfigError(f"{len(names)} class names for {arguments['num_classes']} classes")
    if preprocessing and not {"mean", "std", "channel_order"} <= preprocessing.keys():
        raise ConfigError("preprocessing needs mean, std and channel_order")
    state = target.model.state_dict()
    plain = dict(preprocessing) if preprocessing else None
    write_safetensors(Path(folder), Bundle(state, arguments, plain, tuple(names)))


def arguments_of(model: Any) -> dict[str, Any]:
    """The arguments of `TimeSformer` that make a model like this one, as plain values."""
    vit: Any = getattr(model, "model", None)
    if not hasattr(vit, "attention_type"):
        raise ConfigError(f"save_pretrained: a TimeSformer is needed, not {type(model).__name__}")
    patches = vit.patch_embed
    height, width = (side * patches.patch_size for side in patches.grid_size)
    last = vit.blocks[-1]
    positions = "none" if vit.pos_embed is None else "space_time"
    if vit.pos_embed is not None and vit.time_embed is None and vit.one_sequence_per_clip:
        positions = "space"
    return {
        "img_size": height if height == width else [height, width],
        "patch_size": patches.patch_size,
        "num_classes": vit.num_classes,
        "num_frames": vit.num_frames,
        "attention_type": vit.attention_type,
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": last.attn.num_heads,
        "mlp_ratio": last.mlp.fc1.out_features / vit.embed_dim,
        "drop_path_rate": getattr(last.drop_path, "drop_prob", 0.0),
        "pos_embed_type": positions,
        "tubelet_size": patches.tubelet_size,
        "cls_in_time": getattr(last, "cls_in_time", False),
    }
