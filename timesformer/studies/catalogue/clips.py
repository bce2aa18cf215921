"""What longer and larger clips cost (Figure 3)."""

from __future__ import annotations

from tqdm import tqdm

from timesformer.studies import costs
from timesformer.studies.catalogue.schemes import SCHEMES
from timesformer.studies.registry import register_table
from timesformer.utils.text import format_table

CLIPS = ((8, 224), (8, 336), (8, 448), (8, 560), (32, 224), (64, 224), (96, 224))


@register_table("clips")
def clips_table() -> str:
    """How multiply-adds grow with the size and length of a clip (Figure 3)."""
    names = [scheme.name for scheme in SCHEMES[1:]]
    rows: list[tuple[str, ...]] = [("GMACs of a clip", *names, "joint / divided")]
    for frames, side in tqdm(CLIPS, desc="clips", disable=None):
        macs = [costs.cost(name, frames, side)[1] / 1e9 for name in names]
        cells = (f"{x:,.0f}" for x in macs)
        rows.append((f"{frames}×{side}²", *cells, f"{macs[0] / macs[1]:.2f}"))
    return f"{format_table(rows)}\n\n400 classes.\n{costs.NOTE}"
