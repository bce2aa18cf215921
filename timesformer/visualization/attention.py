"""Pictures of what mattered to a model in a clip.

Shape letters: T frames, H×W pixels, h×w patches of a frame, A heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from timesformer.utils.files import written_whole
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
    fitted,
    write_gif,
)

COLUMNS = 8  # frames side by side
SHOWN_SIDE = 224  # pixels of a frame of the overlays, at least
OPAQUE = 0.65  # the most that a map hides of a frame
FRAMES_PER_SECOND = 4
Frames = NDArray[np.uint8]
Maps = NDArray[np.floating]


def overlays(frames: Frames, maps: Maps) -> Frames:
    """Lay maps (T, h, w) over frames (T, H, W, 3): the more a patch matters, the brighter.

    All frames share one scale, so frames can be compared; the top percent is cut off, or a single
    patch would hide the rest.
    """
    H, W = frames.shape[1:3]
    top = max(float(np.quantile(maps, 0.99)), 1e-12)
    shown = []
    for frame, relevance in zip(frames, np.clip(maps / top, 0, 1), strict=True):
        smooth = Image.fromarray(relevance.astype(np.float32), "F")
        heat = np.asarray(smooth.resize((W, H), Image.Resampling.BILINEAR))
        colour = colormaps["inferno"](heat)[..., :3] * 255
        share = (OPAQUE * np.sqrt(heat))[..., None]
        grey = frame.mean(-1, keepdims=True) * 0.5 + frame * 0.5
        shown.append(grey * (1 - share) + colour * share)
    return np.stack(shown).round().astype(np.uint8)


def side_by_side(frames: Frames, maps: Maps) -> Frames:
    """Frames with their maps beside them, large enough to be looked at."""
    both = np.concatenate([frames, overlays(frames, maps)], axis=2)
    factor = max(1, -(-SHOWN_SIDE // frames.shape[1]))
    return both.repeat(factor, axis=1).repeat(factor, axis=2)


def write_film(path: Path, pictures: Frames) -> None:
    """Write pictures (T, H, W, 3) as a GIF, at the pace of `write_mp4`."""
    write_gif(path, [Image.fromarray(picture) for picture in pictures], 1000 // FRAMES_PER_SECOND)


def write_mp4(path: Path, pictures: Frames) -> None:
    """Write pictures (T, H, W, 3) as H.264, which every browser and player shows."""
    pictures = pictures[:, : pictures.shape[1] // 2 * 2, : pictures.shape[2] // 2 * 2]
    with written_whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND))
        stream.width, stream.height, stream.pix_fmt = *pictures.shape[2:0:-1], "yuv420p"
        stream.options = {"crf": "18"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@all_scripts()
def contact_sheet(
    frames: Frames,
    maps: Maps,
    numbers: Sequence[int],
    title: str,
    verdict: tuple[str, bool],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Figure:
    """Draw all frames beside their maps, the share of each, and how far to believe them.

    Args:
        frames: (T, H, W, 3).
        maps: (T, h, w), adding up to 1.
        numbers: of the frames in the file.
        title: headline.
        verdict: whether the maps are faithful, in words and as such.
        curves: deletion and insertion by name, the maps' own first.
    """
    T, H, W, _ = frames.shape
    columns = min(COLUMNS, T)
    rows = -(-T // columns)
    cell = 1.55  # inches
    wide = columns * cell
    strip, chart, head = 2 * cell * H / W + 0.32, 2.0, 0.86
    figure = blank_figure(max(wide, 8.0) + 0.3, head + rows * strip + chart + 0.5)
    width, height = figure.get_figwidth(), figure.get_figheight()
    font: dict[str, Any] = {"size": 14, "weight": "bold"}
    shown = fitted(figure, title, width - 0.3, **font)
    figure.text(0.15 / width, 1 - 0.32 / height, shown, color=INK, parse_math=False, **font)
    words, faithful = verdict
    colour = RIGHT if faithful else WRONG
    mark = "✓ " if faithful else "✗ "
    figure.text(0.15 / width, 1 - 0.6 / height, mark + words, size=11, color=colour)
    over, shares = overlays(frames, maps), maps.sum((1, 2))
    for t in range(T):
        row, column = divmod(t, columns)
        top = height - head - row * strip
        for line, picture in enumerate((frames[t], over[t])):
            bottom = top - 0.24 - (line + 1) * cell * H / W
            axes = figure.add_axes(
                ((0.15 + column * cell) / width, bottom / height,
                 (cell - 0.04) / width, (cell * H / W - 0.04) / height)
            )  # fmt: skip
            axes.imshow(picture, interpolation="nearest" if line == 0 else "bilinear")
            axes.set_axis_off()
        label = f"frame {numbers[t]} · {100 * shares[t]:.0f} %"
        figure.text(
            (0.15 + (column + 0.48) * cell) / width, (top - 0.16) / height, label,
            ha="center", size=8, color=FAINT,
        )  # fmt: skip
    third = (width - 0.3) / 3
    for i, draw in enumerate((_draw_shares, _draw_deletion, _draw_insertion)):
        axes = figure.add_axes(
            ((0.15 + i * third + 0.42) / width, 0.45 / height,
             (third - 0.6) / width, (chart - 0.55) / height)
        )  # fmt: skip
        draw(axes, shares, numbers, curves)
    return figure


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, size=9, color=INK, loc="left")
    axes.tick_params(labelsize=7, colors=FAINT, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def _draw_shares(axes: Axes, shares: Maps, numbers: Sequence[int], _: Any) -> None:
    axes.bar(range(len(shares)), 100 * shares, color=COLOURS[0], width=0.75)
    axes.axhline(100 / len(shares), color=OTHER, linewidth=0.8, linestyle=":")
    step = max(1, len(numbers) // 8)
    axes.set_xticks(range(0, len(numbers), step), [str(n) for n in numbers[::step]])
    _bare(axes, "share of each frame in % (dotted: all alike)")


def _draw_curves(axes: Axes, curves: Mapping[str, Any], which: int, title: str) -> None:
    colours = (COLOURS[0], OTHER, COLOURS[1])
    for (name, pair), colour in zip(curves.items(), colours, strict=False):
        x = np.linspace(0, 100, len(pair[which]))
        axes.plot(x, pair[which], color=colour, linewidth=1.8 if name == "map" else 1.2, label=name)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    axes.set_xlabel("% of patches", size=7, color=FAINT, labelpad=1)
    _bare(axes, title)


def _draw_deletion(axes: Axes, _: Any, __: Any, curves: Mapping[str, Any]) -> None:
    _draw_curves(axes, curves, 0, "probability while patches go (low is good)")


def _draw_insertion(axes: Axes, _: Any, __: Any, curves: Mapping[str, Any]) -> None:
    _draw_curves(axes, curves, 1, "probability while they come (high is good)")


def heads_figure(weights: Maps, numbers: Sequence[int]) -> Figure:
    """Draw which frame looks at which, for every head of a time step: weights (A, T, T)."""
    A, T, _ = weights.shape
    columns = min(6, A)
    rows = -(-A // columns)
    figure = blank_figure(columns * 1.9 + 0.4, rows * 2.1 + 0.6)
    height = figure.get_figheight()
    figure.text(
        0.02, 1 - 0.3 / height,
        "time step of the last block: frames (rows) look at frames (columns)",
        size=10, color=INK,
    )  # fmt: skip
    figure.subplots_adjust(0.06, 0.06, 0.98, 1 - 0.7 / height, 0.3, 0.35)
    for head, matrix in enumerate(weights):
        axes = figure.add_subplot(rows, columns, head + 1)
        axes.imshow(matrix, cmap="inferno", vmin=0, vmax=float(weights.max()))
        ticks = range(0, T, max(1, T // 4))
        axes.set_xticks(ticks, [str(numbers[t * len(numbers) // T]) for t in ticks])
        axes.set_yticks(ticks, [str(numbers[t * len(numbers) // T]) for t in ticks])
        _bare(axes, f"head {head + 1}")
    return figure
