"""One picture of a data set: frame rates, sizes, durations and how videos spread over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from timesformer.utils.text import counted
from timesformer.visualization.style import COLOURS, FAINT, GRID, INK, all_scripts, blank_figure

COLOUR_OF = dict(zip(("train", "val", "test"), COLOURS, strict=True))
CATEGORIES = 9  # values with a bar of their own
BINS = 16
TAIL = 99.0  # percentile beyond which values share the last bar


@dataclass(frozen=True)
class SplitData:
    """What is drawn of a split.

    Attributes:
        name: train, val or test.
        videos: number of rows in its list.
        fps: frames/s of each readable video.
        short_side: pixels, likewise.
        duration: seconds, likewise.
        class_counts: videos of each class (K,).
    """

    name: str
    videos: int
    fps: NDArray[np.floating]
    short_side: NDArray[np.integer]
    duration: NDArray[np.floating]
    class_counts: NDArray[np.integer]


@all_scripts()
def draw_report(splits: Sequence[SplitData], title: str, clip_seconds: float = 0.0) -> Figure:
    """Draw the splits of a data set over each other.

    Args:
        splits: at least one.
        title: headline.
        clip_seconds: what a training clip spans, marked among the durations; 0 for no mark.
    """
    figure = blank_figure(12, 7.6)
    figure.text(0.045, 0.955, title, size=17, weight="bold", color=INK)
    _legend(figure, splits)
    note = "percent of the videos of each split that can be read"
    figure.text(0.975, 0.912, note, size=10.5, color=FAINT, ha="right")
    rates, sides, durations, classes = figure.subplots(
        2,
        2,
        gridspec_kw={
            "left": 0.065,
            "right": 0.975,
            "top": 0.83,
            "bottom": 0.08,
            "hspace": 0.42,
            "wspace": 0.16,
        },
    ).flat
    _style(rates, "Frame rate", "frames/s, rounded")
    _bars(rates, splits, [np.rint(split.fps) for split in splits])
    _style(sides, "Short side", "pixels")
    _bars(sides, splits, [split.short_side for split in splits])
    _style(durations, "Duration", "seconds")
    _histogram(durations, splits, [split.duration for split in splits], clip_seconds)
    _classes(classes, splits)
    return figure


def _legend(figure: Figure, splits: Sequence[SplitData]) -> None:
    x = 0.045
    for split in splits:
        text = f"■ {split.name}  {counted(split.videos, 'video')}"
        figure.text(x, 0.912, text, size=12, color=COLOUR_OF[split.name], weight="bold")
        x += 0.02 + 0.0079 * len(text)


def _style(axes: Axes, title: str, xlabel: str) -> None:
    axes.set_title(title, loc="left", size=12.5, color=INK, weight="bold", pad=8)
    axes.set_xlabel(xlabel, size=10.5, color=FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=10, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _share_axis(axes: Axes, values: Sequence[NDArray[np.number]]) -> bool:
    """Prepare an axis of percents; says whether there is anything to draw."""
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if any(len(part) for part in values):
        return True
    axes.text(0.5, 0.5, "no readable video", transform=axes.transAxes, ha="center", color=FAINT)
    return False


def _bars(axes: Axes, splits: Sequence[SplitData], values: Sequence[NDArray[np.number]]) -> None:
    """Draw a group of bars for each of the most frequent values, and one for all others."""
    if not _share_axis(axes, values):
        return
    found, counts = np.unique(np.concatenate(values), return_counts=True)
    shown = np.sort(found[np.argsort(-counts, kind="stable")[:CATEGORIES]])
    names = [f"{value:g}" for value in shown] + ["other"] * (len(found) > len(shown))
    width = 0.8 / len(splits)
    for i, (split, part) in enumerate(zip(splits, values, strict=True)):
        share = np.array([np.sum(part == value) for value in shown]) / max(len(part), 1)
        share = np.append(share, 1 - share.sum() if len(part) else 0)[: len(names)]
        places = np.arange(len(names)) + (i - (len(splits) - 1) / 2) * width
        axes.bar(places, 100 * share, width * 0.94, color=COLOUR_OF[split.name])
    axes.set_xticks(range(len(names)), names)
    middle, half = (len(names) - 1) / 2, max(len(names), 6) / 2
    axes.set_xlim(middle - half, middle + half)


def _histogram(
    axes: Axes,
    splits: Sequence[SplitData],
    values: Sequence[NDArray[np.floating]],
    clip_seconds: float,
) -> None:
    """Bars side by side, and a line at the length of a clip."""
    if not _share_axis(axes, values):
        return
    together = np.concatenate(values).astype(float)
    edges, tail = _edges(together)
    axes.hist(
        [np.clip(part, edges[0], edges[-1]) for part in values],
        bins=edges.tolist(),
        weights=[np.full(len(part), 100 / max(len(part), 1)) for part in values],
        color=[COLOUR_OF[split.name] for split in splits],
        rwidth=0.86,
    )
    notes = []
    if edges[0] < clip_seconds < edges[-1]:
        axes.axvline(clip_seconds, color=INK, linewidth=1.4, linestyle=(0, (4, 3)))
        notes.append(f"dashed: a training clip, {clip_seconds:.3g} s")
    elif clip_seconds > together.max():
        notes.append(f"a training clip, {clip_seconds:.3g} s, is longer than all of them")
    if tail:
        notes.append(f"last bar: up to {together.max():,.4g} s")
    note = "   ".join(notes)
    axes.text(1, 1.03, note, transform=axes.transAxes, ha="right", size=9.5, color=FAINT)


def _edges(values: NDArray[np.floating]) -> tuple[NDArray[np.floating], bool]:
    """Edges of the bins, and whether the last one also has a long tail of values."""
    low, high = float(values.min()), float(values.max())
    most = float(np.percentile(values, TAIL))
    tail = high - low > 1.5 * (most - low) and most > low
    if high - low < 1e-6:  # one value for all: a bar in the middle
        margin = max(abs(low) * 0.1, 0.5)
        return np.linspace(low - margin, high + margin, 6), False
    return np.linspace(low, most if tail else high, BINS + 1), tail


def _classes(axes: Axes, splits: Sequence[SplitData]) -> None:
    """Videos of each class, the largest first in every split."""
    _style(axes, "Videos per class", "classes, the largest of each split first")
    for i, split in enumerate(splits):
        counts = np.sort(split.class_counts)[::-1]
        axes.step(
            np.arange(len(counts) + 1),
            np.append(counts, counts[-1]),
            where="post",
            color=COLOUR_OF[split.name],
            linewidth=(3.6, 2.4, 1.2)[i],  # so that equal lines are all seen
            label=split.name,
        )
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 0.99), ncols=len(splits), frameon=False,
        labelcolor="linecolor", fontsize=10.5, handlelength=1.2, borderpad=0, columnspacing=1.2,
    )  # fmt: skip
    axes.set_xlim(0, max(len(split.class_counts) for split in splits))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if max(split.class_counts.max() for split in splits) > 20:
        axes.set_yscale("symlog", linthresh=1)  # logarithmic, but has a 0
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
