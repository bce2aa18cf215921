"""The paper's tables of costs (arXiv 2102.05095) with our own numbers beside them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from tqdm import tqdm

from timesformer.models.profiling import count_macs
from timesformer.models.vit import TimeSformer
from timesformer.utils.text import format_table

VIEWS = 3  # of a test in the paper
NOTES = """\
Paper: arXiv 2102.05095. Its TFLOPs are 10¹² multiply-adds of 3 views: half of what counts a
multiplication and an addition apart. GMACs: 10⁹ multiply-adds of one view. Accuracies are the
paper's, in %."""


class Scheme(NamedTuple):
    """A row of the paper's Table 1."""

    name: str
    params: str
    k400: str
    ssv2: str


SCHEMES = (
    Scheme("space_only", "85.9M", "76.9", "36.6"),
    Scheme("joint_space_time", "85.9M", "77.4", "58.5"),
    Scheme("divided_space_time", "121.4M", "78.0", "59.5"),
    Scheme("sparse_local_global", "121.4M", "75.9", "56.3"),
    Scheme("axial", "156.8M", "73.5", "56.2"),
)


class Variant(NamedTuple):
    """One of the paper's three models."""

    name: str
    frames: int
    side: int
    tflops: str
    k400: str


VARIANTS = (
    Variant("TimeSformer", 8, 224, "0.59", "78.0"),
    Variant("TimeSformer-HR", 16, 448, "5.11", "79.7"),
    Variant("TimeSformer-L", 96, 224, "7.14", "80.7"),
)
# The paper's Figure 3 (cost): a longer and a larger clip, for two schemes.
CLIPS = ((8, 224), (8, 336), (8, 448), (8, 560), (32, 224), (64, 224), (96, 224))
# Its Table 4: what tokens know of their place.
POSITIONS = (("none", "75.4", "45.8"), ("space", "77.8", "52.5"), ("space_time", "78.0", "59.5"))


@cache
def cost(scheme: str, frames: int, side: int, classes: int = 400) -> tuple[int, int]:
    """Return parameters, and multiply-adds of a clip of `frames` × `side`²."""
    with torch.device("meta"):
        model = TimeSformer(side, 16, classes, frames, scheme)
    return sum(p.numel() for p in model.parameters()), count_macs(model, (3, frames, side, side))


def schemes_table() -> str:
    """Return Table 1: parameters and accuracy of the five schemes; and their multiply-adds."""
    rows: list[tuple[str, ...]] = [
        ("scheme", "paper", "K=174", "K=400", "GMACs 8×224", "16×448", "K400", "SSv2")
    ]
    for scheme in tqdm(SCHEMES, desc="schemes", disable=None):
        few, many = (cost(scheme.name, 8, 224, classes)[0] for classes in (174, 400))
        macs = [cost(scheme.name, *clip)[1] / 1e9 for clip in ((8, 224), (16, 448))]
        cells = (f"{few:,}", f"{many:,}", *(f"{x:,.1f}" for x in macs))
        rows.append((scheme.name, scheme.params, *cells, scheme.k400, scheme.ssv2))
    return format_table(rows)


def variants_table() -> str:
    """Return a table of the three models with divided attention."""
    rows: list[tuple[str, ...]] = [("model", "clip", "TFLOPs, paper", "ours", "GMACs/view", "K400")]
    for variant in tqdm(VARIANTS, desc="models", disable=None):
        macs = cost("divided_space_time", variant.frames, variant.side)[1]
        clip = f"{variant.frames}×{variant.side}²"
        numbers = (variant.tflops, f"{VIEWS * macs / 1e12:.2f}", f"{macs / 1e9:,.1f}")
        rows.append((variant.name, clip, *numbers, variant.k400))
    return format_table(rows)


def clips_table() -> str:
    """Return Figure 3: how cost grows with the size and length of a clip."""
    names = [scheme.name for scheme in SCHEMES[1:]]
    rows: list[tuple[str, ...]] = [("GMACs of a clip", *names, "joint / divided")]
    for frames, side in tqdm(CLIPS, desc="clips", disable=None):
        macs = [cost(name, frames, side)[1] / 1e9 for name in names]
        cells = (f"{x:,.0f}" for x in macs)
        rows.append((f"{frames}×{side}²", *cells, f"{macs[0] / macs[1]:.2f}"))
    return format_table(rows)


def positions_table() -> str:
    """Return Table 4: parameters with and without embeddings of place and time."""
    rows: list[tuple[str, ...]] = [("positions", "parameters", "K400", "SSv2")]
    for kind, k400, ssv2 in POSITIONS:
        with torch.device("meta"):
            model = TimeSformer(pos_embed_type=kind)
        rows.append((kind, f"{sum(p.numel() for p in model.parameters()):,}", k400, ssv2))
    return format_table(rows)


def cost_tables() -> str:
    """Return all tables that need no runs."""
    return "\n\n".join(
        (
            "Schemes (Table 1): parameters in the paper, and ours for 174 and 400 classes\n\n"
            + schemes_table(),
            "Models: divided attention, 3 views\n\n" + variants_table(),
            "Clips (Figure 3), 400 classes\n\n" + clips_table(),
            "Positions (Table 4), divided attention, 400 classes\n\n" + positions_table(),
            NOTES,
        )
    )
