"""A picture of what is in a long video, and when.

Letters: n windows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from timesformer.visualization.style import (
    FAINT,
    GRID,
    INK,
    OTHER,
    all_scripts,
    blank_figure,
    class_colours,
    fitted,
)

ROWS = 10  # classes that are shown
POINTS = 1200  # of a curve; more are averaged, since no more can be told apart
WIDTH, LEFT, RIGHT = 13.0, 2.1, 0.25  # inches
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # seconds
Bar = tuple[float, float, int]
"""Start and end in seconds, and the class."""


@dataclass(frozen=True)
class Shown:
    """What a picture is made of.

    Attributes:
        title: headline.
        said: a line below it.
        duration: seconds.
        moments: seconds that the probabilities are of (n,).
        chances: probabilities (n, K).
        names: of the classes (K,).
        bars: the segments.
        level: the probability from which on a class is claimed.
        pictures: small frames, each with its second.
        truth: true segments; () if they aren't known.
    """

    title: str
    said: str
    duration: float
    moments: NDArray[np.floating]
    chances: NDArray[np.floating]
    names: Sequence[str]
    bars: Sequence[Bar]
    level: float
    pictures: Sequence[tuple[float, NDArray[np.uint8]]] = ()
    truth: Sequence[Bar] = field(default=())


@all_scripts()
def timeline_figure(shown: Shown) -> Figure:
    """Draw a row for each class that matters: its probability, its segments, and the true ones."""
    labels = _rows_of(shown)
    row, head = 0.78, 0.95
    strip = _strip_height(shown)
    height = head + strip + row * len(labels) + 0.6
    figure = blank_figure(WIDTH, height)
    fonts: tuple[dict[str, Any], ...] = ({"size": 14, "weight": "bold"}, {"size": 9.5})
    for text, y, colour, font in zip(
        (shown.title, shown.said), (0.36, 0.66), (INK, FAINT), fonts, strict=True
    ):
        fit = fitted(figure, text, WIDTH - 0.5, **font)
        place = 0.2 / WIDTH, 1 - y / height
        figure.text(*place, fit, color=colour, parse_math=False, **font)
    _draw_pictures(figure, shown, head, strip)
    colours = class_colours(len(shown.names))
    moments, curves = _thinned(shown.moments, shown.chances[:, labels])
    for i, label in enumerate(labels):
        top = head + strip + i * row
        axes = figure.add_axes(
            (LEFT / WIDTH, 1 - (top + row - 0.06) / height,
             (WIDTH - LEFT - RIGHT) / WIDTH, (row - 0.06) / height)
        )  # fmt: skip
        _draw_row(axes, shown, label, colours[label], moments, curves[:, i])
        last = i == len(labels) - 1
        axes.tick_params(labelbottom=last, bottom=last, labelsize=8, colors=FAINT, length=3)
        name = fitted(figure, shown.names[label], LEFT - 0.35, size=9.5)
        figure.text(
            (LEFT - 0.12) / WIDTH, 1 - (top + (row - 0.06) / 2) / height, name,
            ha="right", va="center", size=9.5, color=INK, parse_math=False,
        )  # fmt: skip
    return figure


def _rows_of(shown: Shown) -> list[int]:
    """Return the classes to show, in label order: by time claimed, then by probability."""
    claimed = np.zeros(len(shown.names))
    for start, end, label in (*shown.bars, *shown.truth):
        claimed[label] += end - start
    order = np.lexsort((-shown.chances.mean(0), -claimed))
    many = max(3, int((claimed > 0).sum()))  # of classes that aren't claimed a few, to compare
    return sorted(order[: min(ROWS, many, len(order))].tolist())


def _thinned(
    moments: NDArray[np.floating], curves: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Average neighbours, so that a long video has no more points than can be seen."""
    group = -(-len(moments) // POINTS)
    if group < 2:
        return moments, curves
    places = np.arange(0, len(moments), group)
    counts = np.diff([*places, len(moments)])
    return (
        np.add.reduceat(moments, places) / counts,
        np.add.reduceat(curves, places, axis=0) / counts[:, None],
    )


def _draw_row(
    axes: Axes,
    shown: Shown,
    label: int,
    colour: str,
    moments: NDArray[np.floating],
    curve: NDArray[np.floating],
) -> None:
    axes.set_xlim(0, shown.duration)
    axes.set_ylim(-0.42 if shown.truth else -0.26, 1.04)
    axes.fill_between(moments, 0, curve, color=colour, alpha=0.25, linewidth=0)
    axes.plot(moments, curve, color=colour, linewidth=0.9)
    axes.axhline(shown.level, color=OTHER, linewidth=0.7, linestyle=":", zorder=0)
    bars = [(s, e - s) for s, e, k in shown.bars if k == label]
    axes.broken_barh(bars, (-0.2, 0.16), facecolors=colour, linewidth=0)
    true = [(s, e - s) for s, e, k in shown.truth if k == label]
    axes.broken_barh(true, (-0.36, 0.1), facecolors=INK, linewidth=0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MultipleLocator(_tick(shown.duration)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: clock(x, shown.duration)))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _tick(duration: float) -> float:
    """Return a step that clocks have, for at most a dozen marks."""
    return next((step for step in STEPS if duration <= 12 * step), duration / 12)


def clock(seconds: float, duration: float) -> str:
    """Return a moment as people read it in a video of that length: 2.5 s, 1:05, 1:02:03."""
    if duration < 20:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _width_of_picture(shown: Shown) -> float:
    return (WIDTH - LEFT - RIGHT) / max(1, len(shown.pictures)) - 0.06


def _strip_height(shown: Shown) -> float:
    if not shown.pictures:
        return 0.0
    tallest = max(picture.shape[0] / picture.shape[1] for _, picture in shown.pictures)
    return min(1.6, _width_of_picture(shown) * tallest) + 0.1


def _draw_pictures(figure: Figure, shown: Shown, head: float, strip: float) -> None:
    """Draw small frames above their moments; the first and the last one stay within the axis."""
    height, width = figure.get_figheight(), _width_of_picture(shown)
    inches = WIDTH - LEFT - RIGHT
    for second, picture in shown.pictures:
        wide = min(width, (strip - 0.1) * picture.shape[1] / picture.shape[0])
        tall = wide * picture.shape[0] / picture.shape[1]
        middle = min(max(inches * second / shown.duration, wide / 2), inches - wide / 2)
        axes = figure.add_axes(
            ((LEFT + middle - wide / 2) / WIDTH, 1 - (head + tall) / height,
             wide / WIDTH, tall / height)
        )  # fmt: skip
        axes.imshow(picture, aspect="auto", interpolation="bilinear")
        axes.set_axis_off()
