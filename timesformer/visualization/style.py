"""What all pictures have in common."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from timesformer.utils.files import written_whole


def write_png(path: Path, figure: Figure) -> None:
    """Save a picture as a PNG, whatever its name ends in."""
    with written_whole(path) as partial:
        figure.savefig(partial, format="png")
