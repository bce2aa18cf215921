"""Pictures of features: colours say classes, frames say right and wrong, the page has all of it."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from timesformer.visualization import embedding_page
from timesformer.visualization.embedding import Classes, Panel, neighbours_sheet, scatter
from timesformer.visualization.embedding_page import page
from timesformer.visualization.style import RIGHT, WRONG, class_colours, write_png


def jpeg(value: int) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (96, 64), (value, 90, 90)).save(file, format="JPEG")
        return file.getvalue()


def panels(videos: int, count: int = 2, queries: tuple[int, ...] = ()) -> list[Panel]:
    points = np.random.default_rng(0).normal(size=(videos, 2))
    nearest = np.stack([np.roll(np.arange(videos), -i)[1:4] for i in queries or [0]])
    return [Panel(f"model {i}", points * (i + 1), ["a line"], nearest) for i in range(count)]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("count", [1, 10, 11, 20, 21, 174])
def test_colours_differ(count: int) -> None:
    found = class_colours(count)
    assert len({*found}) == len(found) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in found)
    assert class_colours(20)[:10] == class_colours(10)


def test_the_legend_has_the_colours_of_the_points() -> None:
    names = ["eat", "_hidden", "costs 1$ or 2$", "nobody"]
    labels = np.array([2, 0, 1, 1, 0, 2, 2])
    (first, _) = drawn = panels(7)
    figure = scatter(drawn, Classes(labels, names), "a title", ["a note"])
    (legend,) = figure.legends
    handles = {
        text.get_text(): to_hex(handle.get_color())
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert [*handles] == names[:3]
    (dots,) = figure.axes[0].collections
    found = {tuple(xy): to_hex(c) for xy, c in zip(dots.get_offsets(), dots.get_facecolors())}  # noqa: B905
    for xy, label in zip(first.coordinates, labels, strict=True):
        assert found[tuple(xy)] == handles[names[label]]
    assert {"a title", "a note", "model 0", "model 1", "a line"} <= {*texts(figure)}
    assert len(figure.axes) == 2


def test_many_classes_and_none_have_no_legend(tmp_path: Path) -> None:
    for labels in (np.arange(30), np.full(30, -1)):
        classes = Classes(labels, [f"class {i}" for i in range(30)])
        figure = scatter(panels(30, 5), classes, "t", [])
        assert not figure.legends
        assert ("30 classes: index.html names them" in texts(figure)) == (labels.max() > 0)
        assert len({*map(tuple, figure.axes[0].collections[0].get_facecolors())}) == len(
            {*labels.tolist()}
        )
    write_png(tmp_path / "x.png", figure)


@pytest.mark.parametrize("labelled", [True, False])
def test_frames_of_neighbours(labelled: bool) -> None:
    labels = np.array([0, 0, 1, 0, 1]) if labelled else np.full(5, -1)
    paths = [f"{i}.mp4" for i in range(5)]
    figure = neighbours_sheet(
        panels(5, queries=(0, 4)),
        [0, 4],
        [jpeg(40 * i) for i in range(5)],
        paths,
        Classes(labels, ["a", "b"]),
        "t",
    )
    # of each of two videos itself once, and three neighbours for each of two models
    assert len(figure.axes) == 2 * (1 + 2 * 3)
    frames = [to_hex(axes.patches[0].get_edgecolor()) for axes in figure.axes]
    shown = [int(axes.images[0].get_array()[0, 0, 0]) // 38 for axes in figure.axes]
    assert shown[:4] == [0, 1, 2, 3]
    assert shown[7:11] == [4, 0, 1, 2]
    if labelled:
        assert frames[1:4] == [RIGHT, WRONG, RIGHT]
        assert frames[8:11] == [WRONG, WRONG, RIGHT]
    else:
        assert not {RIGHT, WRONG} & {*frames}
    assert "3.mp4" in texts(figure)


def data_of(text: str) -> dict:
    (found,) = re.findall(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_the_page_has_everything_and_asks_no_network() -> None:
    paths = ["a.mp4", "</script><b>.mp4", "caf\udce9.mp4", "d", "e"]
    pictures = [jpeg(40 * i) for i in range(5)]
    classes = Classes(np.array([1, 0, 1, 0, 1]), ["a & b", "<c>"])
    drawn = panels(5)
    text = page(drawn, classes, pictures, paths, ["", "cut short", "", "", ""], "<t>", ["n & m"])
    text.encode()  # a name that isn't text is in ASCII
    assert text.count("</script>") == 2
    assert "&lt;t&gt;" in text
    assert not re.search(r"(https?:)?//[a-z]|src=\"[^d]|@import|fetch\(", text)
    data = data_of(text)
    assert data["paths"] == paths
    assert [base64.b64decode(t) for t in data["thumbnails"]] == pictures
    assert data["names"] == {"0": "a & b", "1": "<c>"}
    assert data["colours"] == {"-1": classes.colours[-1], "0": classes.colours[0], "1": classes.colours[1]}  # fmt: skip  # noqa: E501
    assert data["damage"][1] == "cut short"
    for panel, shown in zip(drawn, data["panels"], strict=True):
        points = np.array(shown["points"])
        assert (points.min(0), points.max(0)) == (pytest.approx([0, 0]), pytest.approx([1, 1]))
        assert (points.argmax(0) == panel.coordinates.argmax(0)).all()


def test_a_page_of_many_videos_has_smaller_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_page, "MANY", 4)
    classes = Classes(np.full(5, -1), [])
    text = page(panels(5), classes, [jpeg(i) for i in range(5)], ["x"] * 5, [""] * 5, "t", [])
    small = Image.open(io.BytesIO(base64.b64decode(data_of(text)["thumbnails"][0])))
    assert small.size == (48, 32)
