"""What all pictures have in common: colours, an empty figure, and how one is saved."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from timesformer.utils.files import written_whole

INK, FAINT, GRID = "#1f2328", "#6e7781", "#d8dee4"
RIGHT, WRONG, OTHER = "#1a7f37", "#cf222e", "#8c959f"  # classes: the true one, a mistake, the rest
COLOURS = ("#2f6fbb", "#e08a1e", "#2e9a6a")  # for things side by side


def blank_figure(width: float, height: float, dpi: int = 110) -> Figure:
    """Return an empty white figure of this size in inches.

    Without pyplot no global state is left behind, and no window system is needed.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write_png(path: Path, figure: Figure) -> None:
    """Save a picture as a PNG, whatever its name ends in."""
    with written_whole(path) as partial:
        figure.savefig(partial, format="png")
