"""The three models: TimeSformer, TimeSformer-HR and TimeSformer-L."""

from __future__ import annotations

from typing import NamedTuple

from tqdm import tqdm

from timesformer.studies import costs
from timesformer.studies.registry import register_table
from timesformer.utils.text import format_table


class Model(NamedTuple):
    """One of the paper's three models."""

    name: str
    frames: int
    side: int
    tflops: str
    k400: str


MODELS = (
    Model("TimeSformer", 8, 224, "0.59", "78.0"),
    Model("TimeSformer-HR", 16, 448, "5.11", "79.7"),
    Model("TimeSformer-L", 96, 224, "7.14", "80.7"),
)


@register_table("variants")
def variants_table() -> str:
    """Multiply-adds and accuracy of TimeSformer, -HR and -L."""
    rows: list[tuple[str, ...]] = [("model", "clip", "TFLOPs, paper", "ours", "GMACs/view", "K400")]
    for model in tqdm(MODELS, desc="models", disable=None):
        macs = costs.cost("divided_space_time", model.frames, model.side)[1]
        clip = f"{model.frames}×{model.side}²"
        numbers = (model.tflops, f"{costs.VIEWS * macs / 1e12:.2f}", f"{macs / 1e9:,.1f}")
        rows.append((model.name, clip, *numbers, model.k400))
    return f"{format_table(rows)}\n\nDivided attention, 3 views.\n{costs.NOTE}"
