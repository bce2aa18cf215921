"""Pictures of features: a point for each video, and which videos are near each other.

Shape letters: V videos, Q of them, k neighbours.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from timesformer.visualization.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    OTHER,
    RIGHT,
    WRONG,
    all_scripts,
    blank_figure,
    class_colours,
    fitted,
)

ACROSS = 4  # panels side by side
SIDE, ALONE = 4.2, 6.5  # inches of a panel, and of the only one
MOST_NAMED = 20  # classes; of more, a legend can't be told apart
CELL = 1.25  # inches of a middle frame
MARGIN = 0.25
NAMES = 1.3  # inches for the name of a model beside its neighbours


@dataclass(frozen=True)
class Panel:
    """What is drawn of a model.

    Attributes:
        name: what it is called.
        coordinates: where the videos lie (V, 2).
        lines: what stands below its name.
        neighbours: of the videos that `neighbours_sheet` draws, the most similar first (Q, k).
    """

    name: str
    coordinates: NDArray[np.floating]
    lines: Sequence[str]
    neighbours: NDArray[np.integer]


@dataclass(frozen=True)
class Classes:
    """Which video is of which class.

    Attributes:
        labels: of the videos (V,); all -1 where nothing says them.
        names: of the classes, in label order; as many as the largest label asks for.
    """

    labels: NDArray[np.integer]
    names: Sequence[str]

    @property
    def present(self) -> list[int]:
        """Labels that videos have, ascending."""
        return [int(label) for label in np.unique(self.labels) if label >= 0]

    @property
    def colours(self) -> dict[int, str]:
        """Colour of each label that is there; -1 is that of no label."""
        present = self.present
        return dict(zip(present, class_colours(len(present)), strict=True)) | {-1: COLOURS[0]}

    def name(self, label: int) -> str:
        """Return what a class is called, "" for no label."""
        return self.names[label] if label >= 0 else ""


@all_scripts()
def scatter(panels: Sequence[Panel], classes: Classes, title: str, notes: Sequence[str]) -> Figure:
    """Draw the videos as points, a panel for each model.

    Args:
        panels: at least one; their videos are the same.
        classes: give the points their colours.
        title: headline.
        notes: what stands at the bottom.
    """
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    side = SIDE if len(panels) > 1 else ALONE
    named = classes.present
    if len(named) > MOST_NAMED:
        notes, named = [*notes, f"{len(named)} classes: index.html names them"], []
    width = columns * (side + MARGIN) + MARGIN
    above = 0.45 + 0.19 * max(len(panel.lines) for panel in panels)
    per_row = _names_in_a_row(named, classes, width)
    below = 0.2 * -(-len(named) // per_row) + 0.2 * len(notes) + 0.35
    figure = blank_figure(width, 0.6 + rows * (side + above) + below)
    height = figure.get_figheight()
    _write(figure, (MARGIN, height - 0.4), title, width - 2 * MARGIN, size=14, weight="bold")
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        left, top = MARGIN + column * (side + MARGIN), height - 0.6 - row * (side + above)
        _write(figure, (left, top - 0.22), panel.name, side, size=11, weight="bold")
        for number, line in enumerate(panel.lines):
            _write(figure, (left, top - 0.42 - 0.19 * number), line, side, size=9, color=FAINT)
        _points(_axes(figure, (left, top - above - side + 0.12), side), panel, classes)
    if named:
        _legend(figure, named, classes, (MARGIN, below - 0.02), per_row)
    for number, note in enumerate(reversed(notes)):
        place = (MARGIN, 0.15 + 0.2 * number)
        _write(figure, place, note, width - 2 * MARGIN, size=8, color=FAINT)
    return figure


def _write(
    figure: Figure, place: tuple[float, float], text: str, inches: float, **font: Any
) -> None:
    """Write a line, shortened to a width, whose left end is at a place in inches."""
    measured = {name: value for name, value in font.items() if name in ("size", "weight")}
    shown = fitted(figure, text, inches, **measured)
    x, y = place[0] / figure.get_figwidth(), place[1] / figure.get_figheight()
    figure.text(x, y, shown, parse_math=False, **{"color": INK, **font})


def _axes(figure: Figure, corner: tuple[float, float], side: float) -> Axes:
    """Add a square, whose lower left corner is at a place in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((corner[0] / width, corner[1] / height, side / width, side / height))


def _names_in_a_row(named: Sequence[int], classes: Classes, width: float) -> int:
    longest = max((len(classes.name(label)) for label in named), default=0)
    fitting = int((width - 2 * MARGIN) / (0.45 + 0.085 * longest))
    return max(1, min(len(named), fitting))


def _legend(
    figure: Figure,
    named: Sequence[int],
    classes: Classes,
    corner: tuple[float, float],
    per_row: int,
) -> None:
    colours = classes.colours
    dots = [Line2D([], [], color=colours[n], marker="o", linestyle="") for n in named]
    legend = figure.legend(
        dots, ["-"] * len(named), ncols=per_row, loc="upper left", frameon=False, fontsize=9,
        bbox_to_anchor=(corner[0] / figure.get_figwidth(), corner[1] / figure.get_figheight()),
        labelcolor=INK, handletextpad=0.1, columnspacing=1.2, borderpad=0, borderaxespad=0,
    )  # fmt: skip
    # Now: a legend leaves out names that begin with "_", and takes "$" for a formula.
    for text, label in zip(legend.get_texts(), named, strict=True):
        text.set_parse_math(False)
        text.set_text(classes.name(label))


def _points(axes: Axes, panel: Panel, classes: Classes) -> None:
    colours = classes.colours
    size = float(np.clip(4_000 / len(panel.coordinates), 4, 36))
    # In an order that has nothing to do with classes, or the last one would hide the others.
    order = np.random.default_rng(0).permutation(len(panel.coordinates))
    x, y = panel.coordinates[order].T
    colour = [colours[int(label)] for label in classes.labels[order]]
    axes.scatter(x, y, s=size, c=colour, linewidths=0, alpha=0.85)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
    for spine in axes.spines.values():
        spine.set_color(GRID)


@all_scripts()
def neighbours_sheet(
    panels: Sequence[Panel],
    queries: Sequence[int],
    thumbnails: Sequence[bytes],
    paths: Sequence[str],
    classes: Classes,
    title: str,
) -> Figure:
    """Draw some videos, each with its nearest neighbours, a row for each model.

    A frame around a neighbour says whether it is of the same class.

    Args:
        panels: the models.
        queries: the videos (Q,).
        thumbnails: JPEG files of the middle frames (V,).
        paths: of the videos (V,).
        classes: of the videos.
        title: headline.
    """
    k = panels[0].neighbours.shape[1]
    step_x, step_y = CELL + 0.15, CELL + 0.5
    between = NAMES if len(panels) > 1 else 0.15  # from a video to its neighbours
    width = max(2 * MARGIN + (k + 1) * step_x + between, 7.0)
    height = 1.0 + len(queries) * len(panels) * step_y
    figure = blank_figure(width, height)
    _write(figure, (MARGIN, height - 0.4), title, width - 2 * MARGIN, size=14, weight="bold")
    how = "The most similar videos, by cosine of features, the nearest first."
    colours = " Green: of the same class; red: of another." if classes.present else ""
    _write(figure, (MARGIN, height - 0.65), how + colours, width, size=9, color=FAINT)
    for number, query in enumerate(queries):
        for line, panel in enumerate(panels):
            top = height - 0.85 - (number * len(panels) + line) * step_y
            if line == 0:
                _video(figure, (MARGIN, top), thumbnails[query], INK)
                _caption(figure, (MARGIN, top), classes, query, paths)
            if len(panels) > 1:
                place = (MARGIN + step_x, top - CELL / 2)
                _write(figure, place, panel.name, NAMES - 0.1, size=9, weight="bold")
            for i, video in enumerate(map(int, panel.neighbours[number])):
                place = (MARGIN + step_x + between + i * step_x, top)
                _video(figure, place, thumbnails[video], _verdict(classes.labels, query, video))
                _caption(figure, place, classes, video, paths)
    return figure


def _verdict(labels: NDArray[np.integer], query: int, video: int) -> str:
    if labels[query] < 0:
        return OTHER
    return RIGHT if labels[query] == labels[video] else WRONG


def _video(figure: Figure, corner: tuple[float, float], jpeg: bytes, colour: str) -> None:
    """Draw a middle frame in a square, whose upper left corner is at a place in inches."""
    axes = _axes(figure, (corner[0], corner[1] - CELL), CELL)
    axes.imshow(Image.open(io.BytesIO(jpeg)), extent=(0, 1, 0, 1), aspect="auto")
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linewidth=5))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()


def _caption(
    figure: Figure,
    corner: tuple[float, float],
    classes: Classes,
    video: int,
    paths: Sequence[str],
) -> None:
    """Write class and path below a frame."""
    name = classes.name(int(classes.labels[video]))
    lines = [(name, INK)] * bool(name) + [(paths[video], FAINT)]
    for number, (line, colour) in enumerate(lines):
        place = (corner[0], corner[1] - CELL - 0.14 - 0.14 * number)
        _write(figure, place, line, CELL + 0.1, size=7, color=colour)
