"""The five attention schemes (Table 1)."""

from __future__ import annotations

from typing import NamedTuple

from tqdm import tqdm

from timesformer.studies import costs
from timesformer.studies.registry import register_study, register_table
from timesformer.studies.study import Data, Study, Variant
from timesformer.utils.text import format_table


class Scheme(NamedTuple):
    """A row of the paper's Table 1, and the recipes of it that are shipped."""

    label: str
    name: str
    params: str
    k400: float
    ssv2: float
    recipes: str  # what its recipes have in their names

    @property
    def paper(self) -> dict[str, float]:
        """Its top-1 by the paper's data."""
        return {"K400": self.k400, "SSv2": self.ssv2}

    @property
    def shipped(self) -> dict[str, str]:
        """Recipes by data."""
        return {
            "kinetics": f"Kinetics/TimeSformer_{self.recipes}_8x32_224",
            "ssv2": f"SSv2/TimeSformer_{self.recipes}_8_224",
        }


SCHEMES = (
    Scheme("space", "space_only", "85.9M", 76.9, 36.6, "spaceOnly"),
    Scheme("joint space-time", "joint_space_time", "85.9M", 77.4, 58.5, "jointST"),
    Scheme("divided space-time", "divided_space_time", "121.4M", 78.0, 59.5, "divST"),
    Scheme("sparse local global", "sparse_local_global", "121.4M", 75.9, 56.3, "sparseLG"),
    Scheme("axial", "axial", "156.8M", 73.5, 56.2, "axial"),
)
DIVIDED = next(scheme.paper for scheme in SCHEMES if scheme.name == "divided_space_time")
"""Top-1 of the paper's model, by its data."""


@register_study("schemes")
def schemes() -> Study:
    """Top-1 of the five attention schemes (Table 1)."""
    return Study("Attention schemes", _variants, source="TimeSformer, Table 1")


def _variants(data: Data) -> list[Variant]:
    return [
        Variant(
            scheme.label,
            data.with_keys({"TIMESFORMER.ATTENTION_TYPE": scheme.name}, **scheme.shipped),
            paper=scheme.paper[data.paper],
        )
        for scheme in SCHEMES
    ]


@register_table("schemes")
def schemes_table() -> str:
    """Parameters, multiply-adds and accuracy of the five schemes (Table 1)."""
    rows: list[tuple[object, ...]] = [
        ("scheme", "paper", "K=174", "K=400", "GMACs 8×224", "16×448", "K400", "SSv2")
    ]
    for scheme in tqdm(SCHEMES, desc="schemes", disable=None):
        few, many = (costs.cost(scheme.name, 8, 224, classes)[0] for classes in (174, 400))
        macs = [costs.cost(scheme.name, *clip)[1] / 1e9 for clip in ((8, 224), (16, 448))]
        cells = (f"{few:,}", f"{many:,}", *(f"{x:,.1f}" for x in macs))
        rows.append((scheme.name, scheme.params, *cells, scheme.k400, scheme.ssv2))
    said = "K: classes, for which parameters are ours."
    return f"{format_table(rows)}\n\n{said}\n{costs.NOTE}"
