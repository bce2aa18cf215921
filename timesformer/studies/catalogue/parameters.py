"""Larger models and smaller ones: parameters against accuracy (Table 2, §4.7)."""

from __future__ import annotations

from typing import Any

from timesformer.config.node import CfgNode
from timesformer.models.build import meta_model
from timesformer.models.profiling import count_parameters
from timesformer.studies.catalogue.schemes import DIVIDED
from timesformer.studies.registry import register_study
from timesformer.studies.study import (
    CNN_RECIPES,
    CNNS,
    NARROW_CNN,
    Data,
    Recipe,
    Study,
    Variant,
    image_start,
)

SCHEMES = {"space": "space_only", "joint": "joint_space_time", "divided": "divided_space_time"}
WIDTHS = (32, 64, 128)  # of the generated videos' models; 16 to a head
# Points that TimeSformer loses with ViT-S ("about 5 % worse") and ViT-L ("1 % worse").
SIZES = {
    "vit_small_patch16_224": -5.0,
    "vit_base_patch16_224": 0.0,
    "vit_large_patch16_224": -1.0,
}


@register_study("parameters")
def parameters() -> Study:
    """Top-1 over the number of parameters (Table 2, §4.7)."""
    return Study(
        "Parameters", _variants, x_label="10⁶ parameters", x_of=_millions, x_log=True,
        source="TimeSformer, §4.7 (S, L: about)",
    )  # fmt: skip


def _millions(cfg: CfgNode) -> float:
    return count_parameters(meta_model(cfg)) / 1e6


def _variants(data: Data) -> list[Variant]:
    return _generated(data) if data.generated else _full_size(data)


def _generated(data: Data) -> list[Variant]:
    transformers = [
        Variant(f"{series} {width}", data.with_keys(_of_width(scheme, width)), series=series)
        for series, scheme in SCHEMES.items()
        for width in WIDTHS
    ]
    cnns = [
        Variant(series, data.with_keys({**NARROW_CNN, "MODEL.MODEL_NAME": name}), series=series)
        for series, name in CNNS.items()
    ]
    return [*transformers, *cnns]


def _of_width(scheme: str, width: int) -> dict[str, Any]:
    size = {"TIMESFORMER.EMBED_DIM": width, "TIMESFORMER.NUM_HEADS": width // 16}
    return {**image_start(size), "TIMESFORMER.ATTENTION_TYPE": scheme}


def _full_size(data: Data) -> list[Variant]:
    transformers = [
        Variant(
            name.partition("_patch")[0],
            data.with_keys({"MODEL.MODEL_NAME": name, **_image_weights(name)}),
            series="divided",
            paper=DIVIDED[data.paper] + points,
        )
        for name, points in SIZES.items()
    ]
    cnns = [
        Variant(series, Recipe(recipe), series=series)
        for series, recipe in CNN_RECIPES[data.name].items()
    ]
    return [*transformers, *cnns]


def _image_weights(name: str) -> dict[str, str]:
    """Return where a model of another size than the recipe's starts from."""
    if "base" in name:
        return {}
    return {"TIMESFORMER.PRETRAINED_MODEL": f"timm/{name}.augreg_in21k_ft_in1k"}
