"""ViViT's four models, and how many blocks over time its second one needs.

Arnab et al. 2021, arXiv 2103.15691, Tables 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from timesformer.models.architecture import TEMPORAL_DEPTHS
from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Recipe, Study, Variant

_SCHEME = "TIMESFORMER.ATTENTION_TYPE"
ENCODER: Mapping[str, str | float] = {
    "MODEL.MODEL_NAME": "vivit_factorised_encoder",
    "TIMESFORMER.TIME_EMBED_AMPLITUDE": -1.0,  # it has no time_embed
}
ENCODER_RECIPE = "Kinetics/ViViT_B_FE_32x2_224"
MEAN: Mapping[str, str | float] = {**ENCODER, "TIMESFORMER.TEMPORAL_DEPTH": 0}


class Model(NamedTuple):
    """A row of ViViT's Table 2."""

    label: str
    keys: Mapping[str, str | float]
    k400: float
    recipe: str  # what its recipe has in its name


MODELS = (
    Model("1 spatio-temporal", {_SCHEME: "joint_space_time"}, 80.0, "joint"),
    Model("2 factorised encoder", ENCODER, 78.8, "FE"),
    Model("3 factorised self-attention", {_SCHEME: "factorised_self_attention"}, 77.4, "FSA"),
    Model("4 factorised dot-product", {_SCHEME: "factorised_dot_product"}, 76.3, "FDP"),
    Model("2 without time (mean)", MEAN, 75.8, "mean"),
)
LAYERS = {0: 75.8, 1: 78.6, 4: 78.8, 8: 78.8, 12: 78.9}  # Table 3
GENERATED_LAYERS = (0, 1, 2, 4)


@register_study("vivit")
def vivit() -> Study:
    """Top-1 of ViViT's four models (ViViT, Table 2)."""
    return Study("ViViT's models", _models, source="ViViT, Table 2")


@register_study("temporal-layers")
def temporal_layers() -> Study:
    """Top-1 over the blocks over time of ViViT's factorised encoder (ViViT, Table 3)."""
    return Study(
        "Blocks over time of the factorised encoder", _layers, x_label="blocks over time",
        source="ViViT, Table 3",
    )  # fmt: skip


def _models(data: Data) -> list[Variant]:
    return [
        Variant(
            model.label,
            data.with_keys(model.keys, kinetics=f"Kinetics/ViViT_B_{model.recipe}_32x2_224"),
            paper=model.k400 if data.paper == "K400" else None,
        )
        for model in MODELS
    ]


def _layers(data: Data) -> list[Variant]:
    return [
        Variant(
            "", _of_depth(data, depth), x=depth,
            paper=LAYERS.get(depth) if data.paper == "K400" else None,
        )
        for depth in (GENERATED_LAYERS if data.generated else LAYERS)
    ]  # fmt: skip


def _of_depth(data: Data, depth: int) -> Recipe:
    # Without the key where it changes nothing, so that the run is that of the models' figure.
    usual = depth == TEMPORAL_DEPTHS["vivit_factorised_encoder"]
    keys = {} if usual else {"TIMESFORMER.TEMPORAL_DEPTH": depth}
    if data.name == "kinetics":
        return Recipe(ENCODER_RECIPE, keys)
    return data.with_keys({**ENCODER, **keys})
