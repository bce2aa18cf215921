"""In which order a block attends to time and space (§4.7)."""

from __future__ import annotations

from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Study, Variant

# The paper says how many points each loses, alike on K400 and SSv2.
ORDERS = (
    ("time, then space", "divided_space_time", 0.0),
    ("space, then time", "space_then_time", -0.5),
    ("both in parallel", "parallel_space_time", -0.4),
)
DIVIDED = {"K400": 78.0, "SSv2": 59.5}


@register_study("order")
def order() -> Study:
    """Top-1 with time first, space first, and both in parallel (§4.7)."""
    return Study("Order of time and space", _variants, source="TimeSformer, §4.7")


def _variants(data: Data) -> list[Variant]:
    return [
        Variant(
            label,
            data.with_keys({"TIMESFORMER.ATTENTION_TYPE": scheme}),
            paper=round(DIVIDED[data.paper] + points, 1),
        )
        for label, scheme, points in ORDERS
    ]
