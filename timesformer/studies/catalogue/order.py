"""In which order a block attends to time and space (§4.7)."""

from __future__ import annotations

from timesformer.studies.catalogue.schemes import DIVIDED
from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Study, Variant

# Scheme, points that it loses and names of its recipes. The paper gives the loss of space first for
# K400 and SSv2 alike, and doesn't say of which data that of the parallel order is.
ORDERS = (
    ("time, then space", "divided_space_time", 0.0, "divST"),
    ("space, then time", "space_then_time", -0.5, "spaceFirst"),
    ("both in parallel", "parallel_space_time", -0.4, "parallel"),
)


@register_study("order")
def order() -> Study:
    """Top-1 with time first, space first, and both in parallel (§4.7)."""
    return Study("Order of time and space", _variants, source="TimeSformer, §4.7")


def _variants(data: Data) -> list[Variant]:
    return [
        Variant(
            label,
            data.with_keys(
                {"TIMESFORMER.ATTENTION_TYPE": scheme},
                kinetics=f"Kinetics/TimeSformer_{recipes}_8x32_224",
                ssv2=f"SSv2/TimeSformer_{recipes}_8_224",
            ),
            paper=round(DIVIDED[data.paper] + points, 1),
        )
        for label, scheme, points, recipes in ORDERS
    ]
