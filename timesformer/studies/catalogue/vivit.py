"""ViViT's four models, and how many blocks over time its second one needs.

Arnab et al. 2021, arXiv 2103.15691, Tables 2 and 3.
"""

from __future__ import annotations

from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Study, Variant

ENCODER = {"MODEL.MODEL_NAME": "vivit_factorised_encoder"}
MODELS = (
    ("1 spatio-temporal", {"TIMESFORMER.ATTENTION_TYPE": "joint_space_time"}, 80.0),
    ("2 factorised encoder", ENCODER, 78.8),
    (
        "3 factorised self-attention",
        {"TIMESFORMER.ATTENTION_TYPE": "factorised_self_attention"},
        77.4,
    ),
    (
        "4 factorised dot-product",
        {"TIMESFORMER.ATTENTION_TYPE": "factorised_dot_product"},
        76.3,
    ),
    ("2 without time (mean)", {**ENCODER, "TIMESFORMER.TEMPORAL_DEPTH": 0}, 75.8),
)
LAYERS = {0: 75.8, 1: 78.6, 4: 78.8, 8: 78.8, 12: 78.9}
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
        Variant(label, data.with_keys(keys), paper=k400 if data.paper == "K400" else None)
        for label, keys, k400 in MODELS
    ]


def _layers(data: Data) -> list[Variant]:
    return [
        Variant(
            "",
            data.with_keys({**ENCODER, "TIMESFORMER.TEMPORAL_DEPTH": depth}),
            x=depth,
            paper=LAYERS.get(depth) if data.paper == "K400" else None,
        )
        for depth in (GENERATED_LAYERS if data.generated else LAYERS)
    ]
