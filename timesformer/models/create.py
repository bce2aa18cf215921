"""Models by name, as users of timm and transformers know it.

    model = timesformer.create_model("timesformer_divST_8x32_224_K400", pretrained="k400.pyth")
    model = timesformer.TimeSformer.from_pretrained("facebook/timesformer-base-finetuned-k400")
    model.save_pretrained("my_model")

A model made here from weights or a recipe knows its `preprocessing` and `class_names`. Names are
either registered models (MODEL.MODEL_NAME), or recipes of the published release.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from timesformer.clips.preprocessing import Preprocessing
from timesformer.datasets.lists.class_names import read_class_names
from timesformer.models.architecture import Architecture, as_arguments
from timesformer.models.build import make_model, refuse_unread
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.weights.bundle import (
    attach,
    has_fresh_head,
    make_from,
    resized,
)
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.said import preprocessing_of
from timesformer.models.weights.save import save_pretrained
from timesformer.models.weights.sources import read_weights
from timesformer.utils.errors import ConfigError
from timesformer.utils.text import did_you_mean

__all__ = ["RECIPES", "create_model", "from_pretrained", "list_models", "save_pretrained"]


@dataclass(frozen=True)
class Recipe:
    """A recipe of the published release, which its checkpoints are of.

    Attributes:
        architecture: what its model is made of.
        preprocessing: how its clips are made.
        labels: name of the shipped list of classes.
    """

    architecture: Architecture
    preprocessing: Preprocessing
    labels: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return read_class_names(self.labels, self.architecture.num_classes)


_DATA = {"K400": ("kinetics400", 400), "K600": ("kinetics600", 600), "SSv2": ("ssv2", 174)}
_SCHEMES = {
    "divST": "divided_space_time",
    "jointST": "joint_space_time",
    "spaceOnly": "space_only",
}


def _recipe(name: str) -> Recipe:
    _, scheme, clip, size, data = name.split("_")
    frames, _, rate = clip.partition("x")  # Something-Something has no rate
    labels, classes = _DATA[data]
    preprocessing = Preprocessing(
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        channel_order="BGR" if data == "SSv2" else "RGB",
        num_frames=int(frames),
        sampling="rate" if rate else "segments",
        sampling_rate=int(rate) if rate else None,
        target_fps=30.0 if rate else None,
        clip_sampling="legacy" if rate else None,
        short_side=int(size),  # tested on three crops of full height
        crop_size=int(size),
        num_clips=1,
        num_crops=3,
        ensemble="sum",
        multi_label=False,
    )
    architecture = Architecture(
        img_size=int(size),
        num_classes=classes,
        num_frames=int(frames),
        attention_type=_SCHEMES[scheme],
    )
    return Recipe(architecture, preprocessing, labels)


RECIPES: dict[str, Recipe] = {
    name: _recipe(name)
    for name in (
        "timesformer_divST_8x32_224_K400",
        "timesformer_divST_16x16_448_K400",
        "timesformer_divST_96x4_224_K400",
        "timesformer_divST_8x32_224_K600",
        "timesformer_divST_16x16_448_K600",
        "timesformer_divST_96x4_224_K600",
        "timesformer_jointST_8x32_224_K400",
        "timesformer_spaceOnly_8x32_224_K400",
        "timesformer_divST_8_224_SSv2",
        "timesformer_divST_16_448_SSv2",
        "timesformer_divST_64_224_SSv2",
    )
}
"""Architecture and preprocessing of the paper's models, as in their config files: without reading
those, since that takes a data set, whose video library a model does without."""


def list_models(filter: str = "") -> list[str]:
    """Name what `create_model` knows, in alphabetical order.

    Args:
        filter: a pattern such as "*divST*K400"; a word without wildcards is looked for anywhere.
    """
    names = sorted([*(name for name, _ in MODEL_REGISTRY), *RECIPES])
    if not filter:
        return names
    pattern = filter if any(letter in filter for letter in "*?[") else f"*{filter}*"
    return fnmatch.filter(names, pattern)


def create_model(name: str, pretrained: str | Path = "", **overrides: Any) -> nn.Module:
    """Make a model by name, with fresh weights unless some are given.

    Args:
        name: one of `list_models()`.
        pretrained: weights to load, whatever `load_pretrained` takes. A recipe of a published
            checkpoint brings its architecture, preprocessing and class names, and no weights of
            its own; where a video model's weights say these last two, theirs hold.
        **overrides: fields of `Architecture` to change, e.g. num_classes, num_frames,
            attention_type; for a baseline, those that it has.

    Returns:
        The model, in training mode as every fresh module.

    Raises:
        ConfigError: for an unknown name or override, or a value that can't work.
        WeightsError: if the weights can't be read or aren't this model's.
    """
    known, recipe = list_models(), RECIPES.get(name)
    if name not in known:
        hint = did_you_mean(name, known) or "; timesformer.list_models() has the names"
        raise ConfigError(f"create_model: no model {name!r}{hint}")
    start = recipe.architecture if recipe else Architecture(model=name)
    if pretrained is True:  # as in timm
        raise ConfigError(
            "create_model: pretrained names weights (a file, a folder, timm/NAME, …), and can't be "
            "True: none come with the package"
        )
    model: Any = _make("create_model", start.changed("create_model", overrides), overrides)
    preprocessing = recipe.preprocessing.to_json() if recipe else {}
    names = recipe.class_names if recipe and "num_classes" not in overrides else ()
    if pretrained:
        content = read_weights(pretrained)
        report = load_pretrained(model, content, name=str(pretrained))
        if not (report.copied or report.zeroed):  # an image model becomes what the recipe trains
            preprocessing |= preprocessing_of(content) or {}
        if not has_fresh_head(model, report):
            names = tuple(content.get("class_names") or names)
    attach(model, resized(preprocessing, overrides), names)
    return model


def from_pretrained(source: str | Path, **overrides: Any) -> nn.Module:
    """Make the model that weights are of, whichever of the registry it is, and load them.

    Args:
        source: a file or folder, `timm/NAME`, `hf/ORG/NAME`, or just `ORG/NAME` of Hugging Face's
            hub.
        **overrides: fields of `Architecture` to change; what doesn't fit the weights is resized,
            copied or left fresh, as the log says, e.g. num_classes=10 or num_frames=16.

    Returns:
        The model in evaluation mode, with `preprocessing` and `class_names`, which are empty where
        the source doesn't tell.

    Raises:
        WeightsError: if there are no such weights, or they aren't those of a model that is known.
        ConfigError: if an override can't work.
    """
    return make_from(source, lambda built: _make(str(source), built, overrides), overrides)


def _make(who: str, architecture: Architecture, overrides: Mapping[str, Any]) -> nn.Module:
    """Make a model with fresh weights for somebody who speaks Python."""
    try:
        model = make_model(architecture.to_cfg(), strict=False)
    except ConfigError as error:
        raise ConfigError(f"{who}: {as_arguments(str(error))}") from error
    refuse_unread(who, model, overrides)
    return model
