"""What all pictures have in common: colours, fonts, an empty figure, and how one is saved."""

from __future__ import annotations

import colorsys
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import colormaps, font_manager, rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from timesformer.utils.files import written_whole
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

INK, FAINT, GRID = "#1f2328", "#6e7781", "#d8dee4"
RIGHT, WRONG, OTHER = "#1a7f37", "#cf222e", "#8c959f"  # classes: the true one, a mistake, the rest
COLOURS = ("#2f6fbb", "#e08a1e", "#2e9a6a")  # for things side by side
# Fonts for what matplotlib's own lacks: of Linux, Windows and macOS, those that are there.
FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei"),
    *("Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS"),
)
_MISSING = re.compile(r"Glyph (\d+) .* missing from")


def blank_figure(width: float, height: float, dpi: int = 110) -> Figure:
    """Return an empty white figure of this size in inches.

    Without pyplot no global state is left behind, and no window system is needed.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def class_colours(count: int) -> list[str]:
    """Return a colour "#rrggbb" for each class: as different as so many can be."""
    if count <= 20:  # ten strong ones, then a pale one of each
        order = [*range(0, 20, 2), *range(1, 20, 2)][:count]
        return [to_hex(tuple(colour)) for colour in colormaps["tab20"](order)]
    colours = []
    for i in range(count):
        # The golden ratio puts labels that follow each other, and all so far, far apart in hue.
        saturation, value = ((0.85, 0.85), (0.95, 0.55), (0.5, 0.95))[i % 3]
        colours.append(to_hex(colorsys.hsv_to_rgb(i * 0.618034 % 1, saturation, value)))
    return colours


@cache
def _installed() -> tuple[str, ...]:
    names = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in FONTS if name in names)


@cache
def font_file(text: str) -> str:
    """Return the file of a font that has the letters of a text, if one here has them all."""
    own, *others = (font_manager.findfont(name) for name in ("DejaVu Sans", *_installed()))
    letters = {ord(letter) for letter in text}
    for path in (own, *others):
        if letters <= font_manager.get_font(path).get_charmap().keys():
            return path
    return own


@contextmanager
def all_scripts() -> Iterator[None]:
    """Let text that is made meanwhile take from other fonts what matplotlib's own lacks."""
    with rc_context({"font.family": [*rcParams["font.family"], *_installed()]}):
        yield


def fitted(figure: Figure, text: str, inches: float, beside: str = "", **font: Any) -> str:
    """Shorten a text in its middle, where names differ least, until it fits.

    Args:
        figure: where it is drawn.
        text: the text.
        inches: how wide it and `beside` may be.
        beside: what stands in the same line.
        **font: its size and weight.
    """

    def fits(words: str) -> bool:
        artist = Text(0, 0, words + beside, figure=figure, parse_math=False, **font)
        with warnings.catch_warnings():  # told once, when the picture is saved
            warnings.simplefilter("ignore")
            return artist.get_window_extent().width <= inches * figure.dpi

    def cut(length: int) -> str:
        tail = 2 * length // 5
        return f"{text[: length - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"

    if fits(text):
        return text
    low, high = 1, max(len(text) - 1, 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(cut(middle)) else (low, middle - 1)
    return cut(low)


@contextmanager
def missing_letters(path: Path) -> Iterator[None]:
    """Say in one line which letters no font has, where matplotlib warns of each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    letters = []
    for warning in caught:
        if match := _MISSING.match(str(warning.message)):
            letters.append(chr(int(match[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if letters:
        logger.warning(
            "%s: boxes stand for letters that no font here has (%s): install one that has, e.g. "
            "Noto Sans CJK",
            *(path, "".join(dict.fromkeys(letters))[:20]),
        )


def write_gif(path: Path, pictures: Sequence[Image.Image], milliseconds: int | list[int]) -> None:
    """Save pictures that play for ever; `milliseconds` each of them stays, or one after another."""
    with written_whole(path) as partial:
        pictures[0].save(
            partial, format="GIF", save_all=True, append_images=pictures[1:], loop=0,
            duration=milliseconds, optimize=True,
        )  # fmt: skip


def write_png(path: Path, figure: Figure) -> None:
    """Save a picture as a PNG, whatever its name ends in."""
    with written_whole(path) as partial, missing_letters(path):
        figure.savefig(partial, format="png")
