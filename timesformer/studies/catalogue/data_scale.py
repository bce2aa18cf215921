"""How accuracy grows with the number of training videos (Figure 4)."""

from __future__ import annotations

from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Recipe, Study, Variant

FRACTIONS = (0.25, 0.5, 0.75, 1.0)


@register_study("data-scale")
def data_scale() -> Study:
    """Top-1 over the share of the training videos (Figure 4)."""
    return Study("Amount of training data", _variants, x_label="training videos, %")


def _recipe(data: Data) -> str:
    """Return the recipe of TimeSformer; in the paper all start from ImageNet-1K."""
    return data.recipe if data.generated else f"{data.recipe}_IN1K"


def _variants(data: Data) -> list[Variant]:
    return [
        Variant(
            "",
            Recipe(_recipe(data), {"DATA.FRACTION": fraction}),
            x=100 * fraction,
            series="TimeSformer",
        )
        for fraction in FRACTIONS
    ]
