"""Pictures of a tested model: clips as it saw them, with what it made of them.

Shape letters: V videos, n views of each, K classes, T frames, H×W pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from timesformer.utils.errors import in_one_line
from timesformer.utils.text import class_name, counted
from timesformer.visualization.results import read_results
from timesformer.visualization.style import (
    GRID,
    INK,
    OTHER,
    RIGHT,
    WRONG,
    all_scripts,
    blank_figure,
    fitted,
    missing_letters,
    write_gif,
)

TOP = 3  # classes in each bar chart
_METHOD = re.compile(r"^ +ENSEMBLE_METHOD: (sum|max|prob) *$", re.MULTILINE)


@dataclass(frozen=True)
class Predictions:
    """What a multi-view test saved.

    Attributes:
        scores: (V, K), the views of each video combined.
        per_view: logits (V, n, K).
        labels: true classes (V,).
        paths: videos (V,).
        failed: whether a video couldn't be read (V,).
        class_names: in label order, or ().
        config: YAML of the config that was tested, or "".
    """

    scores: NDArray[np.floating]
    per_view: NDArray[np.floating]
    labels: NDArray[np.integer]
    paths: NDArray[np.str_]
    failed: NDArray[np.bool_]
    class_names: tuple[str, ...] = ()
    config: str = ""

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read an `.npz` of TEST.SAVE_RESULTS_PATH.

        Raises:
            UserError: if the file is missing or isn't one, or videos have several labels.
        """
        return cls(**read_results(path))

    @property
    def predicted(self) -> NDArray[np.integer]:
        """Class of the highest score (V,)."""
        return self.scores.argmax(axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether it is the true one (V,)."""
        return (self.predicted == self.labels) & ~self.failed

    @cached_property
    def probabilities(self) -> NDArray[np.floating]:
        """Class probabilities that rank classes as the scores do (V, K), as in the `.csv`.

        Which DATA.ENSEMBLE_METHOD made the scores the config says; without one, in older files,
        they tell themselves.
        """
        views = self.per_view.shape[1]
        if found := _METHOD.search(self.config):
            is_sum = found[1] == "sum"
            return self.scores if found[1] == "prob" else _softmax(self.scores / views**is_sum)
        if np.allclose(self.scores, _softmax(self.per_view).mean(axis=1), 0, 1e-4, equal_nan=True):
            return self.scores
        summed = self.per_view.sum(axis=1)
        is_sum = np.allclose(self.scores, summed, rtol=1e-3, atol=1e-3, equal_nan=True)
        return _softmax(self.scores / views if is_sum else self.scores)

    def choose(self, count: int, mistakes: int = 0, seed: int = 0) -> list[int]:
        """Pick random videos, one class after the other, then some of the mistakes.

        Args:
            count: how many, mistakes included.
            mistakes: at most so many places, at the end, go to videos that are known to be wrong.
            seed: equal seeds choose equally.
        """
        order = np.random.default_rng(seed).permutation(len(self.labels))
        order = order[~self.failed[order]]
        wrong = [int(i) for i in order if not self.correct[i]][: min(mistakes, count)]
        by_class: dict[int, list[int]] = {}
        for i in order:
            if i not in wrong:
                by_class.setdefault(int(self.labels[i]), []).append(int(i))
        # Sorting by (round, class) takes the first of every class, then the second, …
        turns = sorted(
            (turn, label, i) for label, videos in by_class.items() for turn, i in enumerate(videos)
        )
        return [i for _, _, i in turns[: count - len(wrong)]] + wrong


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def to_frames(clip: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Make a picture of pixel values 0..255, (3, T, H, W) -> RGB (T, H, W, 3)."""
    return np.moveaxis(clip, 0, -1).round().clip(0, 255).astype(np.uint8)


@all_scripts()
def draw_grid(
    predictions: Predictions,
    clips: Sequence[tuple[int, NDArray[np.uint8]]],
    class_names: Sequence[str],
    title: str,
    columns: int = 2,
) -> Figure:
    """Draw each clip as a strip of frames, with true and predicted class and a bar chart.

    Of a mistake it says how probable the true class was, and its place among all.

    Args:
        predictions: of the whole test.
        clips: (index of the video, its frames (T, H, W, 3)).
        class_names: in label order; empty shows numbers.
        title: headline; accuracy and number of videos are added below.
        columns: strips side by side.
    """
    rows = -(-len(clips) // columns)
    strips = [_strip(frames) for _, frames in clips]
    aspect = max(strip.shape[1] / strip.shape[0] for strip in strips)
    strip_width, bars_width = 6.4, 3.2  # inches
    height = strip_width / aspect + 0.52
    figure = blank_figure(columns * (strip_width + bars_width + 0.2), rows * height + 1)
    figure.text(0.012, 1 - 0.36 / figure.get_figheight(), title, size=17, weight="bold", color=INK)
    views = predictions.per_view.shape[1]
    figure.text(
        0.012,
        1 - 0.66 / figure.get_figheight(),
        f"{100 * predictions.correct.mean():.1f} % top-1 on "
        f"{counted(len(predictions.labels), 'video')}, {counted(views, 'view')} each",
        size=11.5,
        color=OTHER,
    )
    grid = figure.add_gridspec(
        rows,
        2 * columns,
        width_ratios=[strip_width, bars_width] * columns,
        left=0.012,
        right=0.988,
        top=1 - 1.23 / figure.get_figheight(),
        bottom=0.1 / figure.get_figheight(),
        wspace=0.03,
        hspace=0.52 / (height - 0.52),
    )
    probabilities = predictions.probabilities
    for place, ((index, _), strip) in enumerate(zip(clips, strips, strict=True)):
        row, column = divmod(place, columns)
        axes = figure.add_subplot(grid[row, 2 * column])
        axes.imshow(strip, interpolation="antialiased", aspect="equal")
        axes.set_axis_off()
        bars = figure.add_subplot(grid[row, 2 * column + 1])
        inches = (bars.get_position().x1 - axes.get_position().x0) * figure.get_figwidth()
        font: dict[str, Any] = {"size": 11, "weight": "bold"}
        text, colour = _verdict(figure, predictions, index, class_names, inches, font)
        axes.set_title(text, loc="left", color=colour, pad=4, parse_math=False, **font)
        _draw_bars(bars, probabilities[index], int(predictions.labels[index]), class_names)
    return figure


@all_scripts()
def write_animation(
    path: Path,
    predictions: Predictions,
    clips: Sequence[tuple[int, NDArray[np.uint8]]],
    class_names: Sequence[str],
    columns: int = 3,
    milliseconds: int = 130,
) -> None:
    """Write a GIF of clips playing side by side, each with the model's verdict below it.

    Args:
        path: the `.gif`.
        predictions: of the whole test.
        clips: (index of the video, its frames (T, H, W, 3)), all with the same T.
        class_names: in label order; empty shows numbers.
        columns: clips side by side.
        milliseconds: how long a frame stays; the last one stays four times as long.
    """
    rows = -(-len(clips) // columns)
    figure = blank_figure(columns * 2.1, rows * 2.45, dpi=100)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.99, bottom=0.4 / figure.get_figheight())
    figure.subplots_adjust(hspace=0.22, wspace=0.06)
    images = []
    for place, (index, frames) in enumerate(clips):
        axes = figure.add_subplot(rows, columns, place + 1)
        images.append(axes.imshow(frames[0], interpolation="bicubic"))
        axes.set_axis_off()
        inches = figure.get_figwidth() / columns - 0.1
        font: dict[str, Any] = {"size": 9.5, "weight": "bold"}
        text, colour = _verdict(figure, predictions, index, class_names, inches, font, place=False)
        axes.text(
            0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", color=colour,
            linespacing=1.25, parse_math=False, **font,
        )  # fmt: skip
    pictures = []
    with missing_letters(path):
        for t in range(len(clips[0][1])):
            for image, (_, frames) in zip(images, clips, strict=True):
                image.set_data(frames[t])
            pictures.append(_rasterise(figure).quantize(128, dither=Image.Dither.NONE))
    durations = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    write_gif(path, pictures, durations)


def _rasterise(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _strip(frames: NDArray[np.uint8], gap: int = 2) -> NDArray[np.uint8]:
    """Frames side by side, separated by white lines."""
    T, H, _, _ = frames.shape
    line = np.full((H, max(gap, H // 40), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, line)]
    return np.concatenate(parts[: 2 * T - 1], axis=1)


def _name(class_names: Sequence[str], label: int) -> str:
    return in_one_line(class_name(class_names, label))


def _verdict(
    figure: Figure,
    predictions: Predictions,
    index: int,
    class_names: Sequence[str],
    inches: float,
    font: Mapping[str, Any],
    place: bool = True,
) -> tuple[str, str]:
    """Return what the model said, what is true when it differs, and the colour for it.

    Args:
        figure: where it is drawn.
        predictions: of the whole test.
        index: the video.
        class_names: in label order; empty shows numbers.
        inches: how wide each of the two lines may be.
        font: of both.
        place: say which place the true class has, too.
    """
    predicted, label = int(predictions.predicted[index]), int(predictions.labels[index])

    def line(mark: str, k: int, note: str = "") -> str:
        note = f"  {100 * predictions.probabilities[index, k]:.0f} %{note}"
        return mark + fitted(figure, _name(class_names, k), inches, mark + note, **font) + note

    if predicted == label:
        return line("✓ ", predicted), RIGHT
    scores = predictions.scores[index]
    rank = 1 + int((scores > scores[label]).sum())
    truth = line("is: ", label, f", place {rank} of {len(scores)}" if place else "")
    return f"{line('✗ ', predicted)}\n{truth}", WRONG


def _draw_bars(
    axes: Axes, probabilities: NDArray[np.floating], label: int, class_names: Sequence[str]
) -> None:
    """Bar chart of the most probable classes, each on a line of 100 %; the true one in green."""
    top = np.argsort(-probabilities, kind="stable")[:TOP]
    rows = np.arange(len(top))
    colours = [RIGHT if k == label else OTHER for k in top]
    axes.barh(rows, 1, height=0.6, color=GRID, alpha=0.5)
    axes.barh(rows, probabilities[top], height=0.6, color=colours, alpha=0.6)
    figure = axes.get_figure(root=True)
    assert figure is not None
    # Names stand left of 0, over half of the width; right of 1 is room for "100 %".
    left, right = -1.5, 1.45
    inches = (-left - 0.08) / (right - left) * axes.get_position().width * figure.get_figwidth()
    for row, k in enumerate(top):
        name = fitted(figure, _name(class_names, int(k)), inches, size=9)
        axes.text(-0.05, row, name, va="center", ha="right", size=9, color=INK, parse_math=False)
        percent = f"{100 * probabilities[k]:.0f} %"
        axes.text(probabilities[k] + 0.03, row, percent, va="center", size=9, color=INK)
    axes.set(xlim=(left, right), ylim=(TOP - 0.5, -0.5))
    axes.set_axis_off()
