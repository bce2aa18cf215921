"""Pictures of predictions: what they show, whatever the dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timesformer.utils.errors import UserError
from timesformer.visualization.predictions import (
    RIGHT,
    WRONG,
    Predictions,
    draw_grid,
    to_frames,
    write_animation,
)

NAMES = ("up", "down", "still")


@pytest.fixture
def predictions() -> Predictions:
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    per_view = rng.normal(size=(12, 2, 3)) * 0.1
    per_view[np.arange(12), :, labels] += 3
    per_view[5] = per_view[5, :, ::-1]  # the true class is the last, so this one is wrong
    paths = np.array([f"{i}.mp4" for i in range(12)])
    return Predictions(per_view.sum(1), per_view, labels, paths, np.zeros(12, bool))


def clips(count: int, frames: int = 4, size: tuple[int, int] = (16, 24)):
    rng = np.random.default_rng(1)
    return [(i, rng.integers(0, 255, (frames, *size, 3)).astype(np.uint8)) for i in range(count)]


def test_probabilities_average_the_softmax_of_views(predictions: Predictions) -> None:
    views = np.exp(predictions.per_view)
    expected = (views / views.sum(-1, keepdims=True)).mean(1)
    np.testing.assert_allclose(predictions.probabilities, expected)
    assert predictions.correct.sum() == 11


def test_choice_covers_classes_then_mistakes(predictions: Predictions) -> None:
    chosen = predictions.choose(7, mistakes=2)
    assert chosen[-1] == 5
    assert len(set(chosen)) == 7
    assert sorted(predictions.labels[chosen[:6]].tolist()) == [0, 0, 1, 1, 2, 2]
    assert chosen == predictions.choose(7, mistakes=2)


def test_frames_are_rounded_pixels() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (4, 8, 6, 3)).astype(np.uint8)
    clip = np.moveaxis(rgb.astype(np.float32) + 0.3, -1, 0)
    np.testing.assert_array_equal(to_frames(clip), rgb)


def test_failed_videos_are_wrong_and_never_drawn(predictions: Predictions) -> None:
    failed = np.arange(12) < 6
    predictions = replace(predictions, failed=failed)
    assert predictions.correct.tolist() == (~failed).tolist()
    assert sorted(predictions.choose(12)) == list(range(6, 12))


def test_grid_says_what_is_right_and_wrong(predictions: Predictions, tmp_path: Path) -> None:
    drawn = [(i, frames) for i, (_, frames) in zip((4, 5, 6), clips(3), strict=True)]
    figure = draw_grid(predictions, drawn, NAMES, "a title")
    titles = {axes.get_title(loc="left"): axes for axes in figure.axes}
    said = [text for text in titles if text]
    assert [text[0] for text in said] == ["✓", "✗", "✓"]
    assert "is: still" in said[1]
    assert titles[said[1]]._left_title.get_color() == WRONG
    assert titles[said[0]]._left_title.get_color() == RIGHT
    assert "91.7 % top-1 on 12 videos" in figure.texts[1].get_text()
    figure.savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


@pytest.mark.parametrize("size", [(16, 24), (48, 20)])
def test_grid_without_names_and_with_any_shape(
    predictions: Predictions, tmp_path: Path, size: tuple[int, int]
) -> None:
    figure = draw_grid(predictions, clips(5, 8, size), (), "numbers")
    assert figure.axes[0].get_title(loc="left").startswith("✓ class 0")
    figure.savefig(tmp_path / "grid.png")


def test_animation_has_every_frame(predictions: Predictions, tmp_path: Path) -> None:
    write_animation(tmp_path / "a.gif", predictions, clips(6), NAMES)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0


def test_results_are_read_back(predictions: Predictions, tmp_path: Path) -> None:
    predictions = replace(predictions, class_names=NAMES)
    fields = ("scores", "per_view", "labels", "paths", "failed", "class_names")
    np.savez(tmp_path / "x.npz", **{name: getattr(predictions, name) for name in fields})
    loaded = Predictions.load(tmp_path / "x.npz")
    for name in fields:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(predictions, name))


@pytest.mark.parametrize("content", [None, b"no archive", "other"])
def test_bad_results_name_the_file(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "x.npz"
    if content == "other":
        np.savez(path, logits=np.zeros(3))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.npz"):
        Predictions.load(path)
