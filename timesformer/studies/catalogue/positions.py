"""What tokens know of their place: nothing, where, or where and when (Table 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from timesformer.models.profiling import count_parameters
from timesformer.models.vit import TimeSformer
from timesformer.studies import costs
from timesformer.studies.registry import register_study, register_table
from timesformer.studies.study import Data, Study, Variant
from timesformer.utils.text import format_table


class Position(NamedTuple):
    """A row of the paper's table."""

    label: str
    kind: str  # TIMESFORMER.POS_EMBED
    k400: float
    ssv2: float
    suffix: str  # of its recipes


POSITIONS = (
    Position("none", "none", 75.4, 45.8, "_noPos"),
    Position("space-only", "space", 77.8, 52.5, "_spacePos"),
    Position("space-time", "space_time", 78.0, 59.5, ""),
)


@register_study("positions")
def positions() -> Study:
    """Top-1 with and without embeddings of place and time (Table 4)."""
    return Study("Positions", _variants, source="TimeSformer, Table 4")


def _variants(data: Data) -> list[Variant]:
    return [
        Variant(
            position.label,
            data.with_keys(
                {"TIMESFORMER.POS_EMBED": position.kind},
                kinetics=f"Kinetics/TimeSformer_divST_8x32_224{position.suffix}",
                ssv2=f"SSv2/TimeSformer_divST_8_224{position.suffix}",
            ),
            paper={"K400": position.k400, "SSv2": position.ssv2}[data.paper],
        )
        for position in POSITIONS
    ]


@register_table("positions")
def positions_table() -> str:
    """Parameters with and without embeddings of place and time (Table 4)."""
    rows: list[tuple[object, ...]] = [("positions", "parameters", "K400", "SSv2")]
    for position in POSITIONS:
        with torch.device("meta"):
            model = TimeSformer(pos_embed_type=position.kind)
        parameters = f"{count_parameters(model):,}"
        rows.append((position.kind, parameters, position.k400, position.ssv2))
    return f"{format_table(rows)}\n\nDivided attention, 400 classes.\n{costs.NOTE}"
