"""How accuracy grows with the number of training videos (Figure 4)."""

from __future__ import annotations

from timesformer.studies.registry import register_study
from timesformer.studies.study import CNN_RECIPES, CNNS, NARROW_CNN, Data, Recipe, Study, Variant

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
TIMESFORMER = "TimeSformer"


@register_study("data-scale")
def data_scale() -> Study:
    """Top-1 over the share of the training videos (Figure 4)."""
    return Study("Amount of training data", _variants, x_label="training videos, %")


def _variants(data: Data) -> list[Variant]:
    return [
        Variant("", _with_share(recipe, fraction), x=100 * fraction, series=name)
        for name, recipe in _models(data).items()
        for fraction in FRACTIONS
    ]


def _models(data: Data) -> dict[str, Recipe]:
    """Return what is compared; in the paper all start from ImageNet-1K.

    SlowFast's recipes start fresh, as its authors' do.
    """
    if not data.generated:
        cnns = {name: Recipe(recipe) for name, recipe in CNN_RECIPES[data.name].items()}
        return {TIMESFORMER: Recipe(f"{data.recipe}_IN1K"), **cnns}
    cnns = {
        name: data.with_keys({**NARROW_CNN, "MODEL.MODEL_NAME": model})
        for name, model in CNNS.items()
    }
    return {TIMESFORMER: data.with_keys({}), **cnns}


def _with_share(recipe: Recipe, fraction: float) -> Recipe:
    return Recipe(recipe.cfg, {**recipe.keys, "DATA.FRACTION": fraction})
