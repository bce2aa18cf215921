"""The picture of a data set shows the numbers that it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from timesformer.visualization.data_report import COLOUR_OF, SplitData, draw_report
from timesformer.visualization.style import write_png


def split(name: str, fps=(), side=(), seconds=(), counts=(1, 0)) -> SplitData:
    return SplitData(name, sum(counts), *map(np.array, (fps, side, seconds)), np.array(counts))


def bars(figure: Figure, panel: int) -> dict[tuple[str, str], float]:
    """Height of each bar by colour and the label below it."""
    axes = figure.axes[panel]
    labels = [text.get_text() for text in axes.get_xticklabels()]
    found = {}
    for bar in axes.patches:
        middle = bar.get_x() + bar.get_width() / 2
        found[bar.get_facecolor()[:3], labels[round(middle)]] = bar.get_height()
    return found


def colour(name: str) -> tuple[float, ...]:
    code = COLOUR_OF[name]
    return tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_bars_are_shares_of_each_split() -> None:
    train = split("train", [30, 29.97, 25, 24], [256] * 4, [1, 2, 3, 4], [3, 1])
    val = split("val", [25, 25], [256, 240], [5, 5], [1, 1])
    figure = draw_report([train, val], "My videos")
    found = bars(figure, 0)
    assert found[colour("train"), "30"] == pytest.approx(50)
    assert found[colour("train"), "25"] == pytest.approx(25)
    assert found[colour("val"), "25"] == pytest.approx(100)
    assert found[colour("val"), "24"] == 0
    assert bars(figure, 1)[colour("val"), "240"] == pytest.approx(50)
    heights = [bar.get_height() for bar in figure.axes[2].patches]
    assert sum(heights) == pytest.approx(200)
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "My videos"
    assert "■ train  4 videos" in texts


def test_rare_values_share_a_bar() -> None:
    sides = [*range(100, 120, 2), *range(100, 118, 2)]
    figure = draw_report([split("test", [30] * 19, sides, [1.0] * 19, [19, 0])], "")
    found = bars(figure, 1)
    assert len(found) == 10
    assert found[colour("test"), "other"] == pytest.approx(100 / 19)
    assert sum(found.values()) == pytest.approx(100)


def test_a_long_tail_and_the_clip_are_noted() -> None:
    seconds = [*np.linspace(9, 10, 300), 900.0]
    data = [split("train", [30] * 301, [256] * 301, seconds, [300, 1])]
    axes = draw_report(data, "", clip_seconds=9.5).axes[2]
    (note,) = (text.get_text() for text in axes.texts)
    assert "a training clip, 9.5 s" in note
    assert "up to 900 s" in note
    assert axes.get_xlim()[1] < 20
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)
    assert [line.get_xdata()[0] for line in axes.lines] == [9.5]
    assert not draw_report(data, "", clip_seconds=60.0).axes[2].lines
    (note,) = (text.get_text() for text in draw_report(data, "", 901.0).axes[2].texts)
    assert "a training clip, 901 s, is longer than all of them" in note


def test_classes_are_sorted_in_each_split() -> None:
    data = [split("train", counts=(1, 5, 3)), split("val", counts=(2, 0, 0))]
    axes = draw_report(data, "").axes[3]
    lines, legend = axes.lines, axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "val"]
    assert [text.get_color() for text in legend.get_texts()] == [line.get_color() for line in lines]
    assert [line.get_ydata().tolist() for line in lines] == [[5, 3, 1, 1], [2, 0, 0, 0]]


@pytest.mark.parametrize("readable", [0, 1])
def test_little_to_draw(tmp_path: Path, readable: int) -> None:
    one = split("train", [30.0] * readable, [256] * readable, [10.0] * readable)
    figure = draw_report([one, split("val")], "odd", 2.1)
    write_png(tmp_path / "data.png", figure)
    with Image.open(tmp_path / "data.png") as picture:
        assert picture.size == (1320, 836)
    assert [path.name for path in tmp_path.iterdir()] == ["data.png"]
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ([] if readable else ["no readable video"])
