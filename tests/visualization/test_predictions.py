"""Pictures of predictions: what they show, whatever the dataset."""

from __future__ import annotations

import errno
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timesformer.config.defaults import get_cfg
from timesformer.utils.errors import UserError
from timesformer.visualization.predictions import (
    RIGHT,
    WRONG,
    Predictions,
    draw_grid,
    to_frames,
    write_animation,
)
from timesformer.visualization.style import write_png

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


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize("method", ["sum", "max", "prob"])
def test_probabilities_rank_as_the_scores_do(predictions: Predictions, method: str) -> None:
    views = np.random.default_rng(3).normal(size=(12, 2, 3)) * 3
    scores, expected = {
        "sum": (views.sum(1), softmax(views.mean(1))),
        "max": (views.max(1), softmax(views.max(1))),
        "prob": (softmax(views).mean(1), softmax(views).mean(1)),
    }[method]
    predictions = replace(predictions, per_view=views, scores=scores)
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-6)
    assert (predictions.probabilities.argmax(1) == predictions.predicted).all()


@pytest.mark.parametrize("method", ["sum", "max", "prob"])
def test_the_config_says_how_views_were_joined(predictions: Predictions, method: str) -> None:
    """Of scores from which it can't be told: they are as the views' softmax, whatever was meant."""
    scores = softmax(predictions.per_view).mean(1)
    cfg = get_cfg()
    cfg.DATA.ENSEMBLE_METHOD = method
    expected = {"sum": softmax(scores / 2), "max": softmax(scores), "prob": scores}[method]
    said = replace(predictions, scores=scores, config=cfg.dump()).probabilities
    np.testing.assert_allclose(said, expected, rtol=1e-6)


def test_what_is_right(predictions: Predictions) -> None:
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
    assert said[1].splitlines()[1].startswith("is: still  ")
    assert said[1].endswith(" %, place 3 of 3")
    assert titles[said[1]]._left_title.get_color() == WRONG
    assert titles[said[0]]._left_title.get_color() == RIGHT
    assert "91.7 % top-1 on 12 videos" in figure.texts[1].get_text()
    figure.savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_bars_have_one_scale_and_their_numbers_at_the_end(predictions: Predictions) -> None:
    figure = draw_grid(predictions, clips(2), NAMES, "a title")
    for video, bars in enumerate(figure.axes[1::2]):
        expected = sorted(predictions.probabilities[video], reverse=True)
        widths = [patch.get_width() for patch in bars.patches]
        np.testing.assert_allclose(widths, [1, 1, 1, *expected])
        numbers = [text for text in bars.texts if text.get_text().endswith(" %")]
        places = [text.get_position()[0] for text in numbers]
        np.testing.assert_allclose(places, expected, atol=0.05)


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


def test_an_animation_is_whole_or_the_one_before(
    predictions: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: Image.Image, target: str | Path, *_: object, **__: object) -> None:
        Path(target).write_bytes(b"GIF89a")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    (tmp_path / "a.gif").write_bytes(b"the one before")
    image = type(Image.new("RGB", (1, 1)))
    save = image.save

    def save_or_fail(self: Image.Image, target: object, *args: object, **options: object) -> None:
        (full if isinstance(target, str | Path) else save)(self, target, *args, **options)

    monkeypatch.setattr(image, "save", save_or_fail)
    with pytest.raises(OSError, match="No space"):
        write_animation(tmp_path / "a.gif", predictions, clips(1, 1), NAMES)
    assert (tmp_path / "a.gif").read_bytes() == b"the one before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def arrays(**changes: object) -> dict[str, object]:
    whole = {
        "scores": np.zeros((2, 3), np.float32), "per_view": np.zeros((2, 1, 3), np.float32),
        "labels": np.array([0, 2]), "paths": np.array(["a.mp4", "b.mp4"]),
        "failed": np.zeros(2, bool), "class_names": np.array(NAMES),
    }  # fmt: skip
    return {name: value for name, value in (whole | changes).items() if value is not None}


BAD = {
    "nothing": (None, "no such file; test with TEST.SAVE_RESULTS_PATH scores.npz"),
    "text": (b"no archive", "not the .npz of a test: it is no archive of arrays"),
    "empty": (b"", "not the .npz of a test"),
    "pickled": (pickle.dumps({"scores": 1}), "not the .npz of a test: it is no archive of arrays"),
    "half a zip": (b"PK\x03\x04half", "not the .npz of a test"),
    "other arrays": ({"logits": np.zeros(3)}, "not the .npz of a test: "),
    "one array": (np.zeros(3), "not the .npz of a test: one array"),
    "no paths": (arrays(paths=None), "not the .npz of a test: "),
    "objects": (arrays(paths=np.array([1, "b"], object)), "not the .npz of a test"),
    "several labels": (arrays(labels=np.zeros((2, 3))), "videos with several labels can't be"),
    "labels of text": (arrays(labels=np.array(["0", "2"])), "labels is <U1 (2,)"),
    "labels too high": (arrays(labels=np.array([0, 3])), "labels must be below the 3 classes"),
    "negative labels": (arrays(labels=np.array([0, -1])), "labels must be below the 3 classes"),
    "other videos": (arrays(failed=np.zeros(3, bool)), "failed is bool (3,)"),
    "other classes": (arrays(scores=np.zeros((2, 4), np.float32)), "scores is float32 (2, 4)"),
    "too few names": (arrays(class_names=np.array(["up"])), "class_names is <U2 (1,)"),
    "no views": (arrays(per_view=np.zeros((2, 3))), "per_view is float64 (2, 3)"),
    "no videos": (arrays(per_view=np.zeros((0, 1, 3)), scores=np.zeros((0, 3)),
        labels=np.zeros(0, int), paths=np.zeros(0, "U1"), failed=np.zeros(0, bool)),
        "not the .npz of a test"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_results_are_one_line(tmp_path: Path, name: str) -> None:
    content, said = BAD[name]
    path = tmp_path / "x.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        with path.open("wb") as file:
            np.save(file, content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(UserError) as caught:
        Predictions.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def complaint(path: Path) -> str | None:
    try:
        Predictions.load(path)
    except UserError as error:
        return str(error)
    return None


LINE = r"\S+x\.npz: not the .npz of a test: [^\n]+\Z"


def test_torn_results_are_one_line(tmp_path: Path) -> None:
    """Cut anywhere, or with a byte turned round."""
    np.savez_compressed(tmp_path / "whole.npz", **arrays())
    whole, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "x.npz"
    Predictions.load(tmp_path / "whole.npz")
    for i in range(0, len(whole), 29):
        path.write_bytes(whole[:i])
        with pytest.raises(UserError, match=LINE):
            Predictions.load(path)
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :])
        said = complaint(path)  # not all of a zip is covered by a sum: dates, for one
        assert said is None or re.match(LINE, said)


def test_a_folder_is_no_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a folder, .*; test with TEST\.SAVE_RESULTS_PATH scores"):
        Predictions.load(tmp_path)
    (tmp_path / "scores.npz").touch()
    with pytest.raises(UserError, match=r"a folder, .*; give \S+/scores\.npz"):
        Predictions.load(tmp_path)


LONG = [f"a ${i} name that is $ {'very ' * 40}long, of class {i}" for i in range(3)]


def test_long_names_stay_in_their_places(predictions: Predictions, tmp_path: Path) -> None:
    """Shortened in the middle; dollars are no formula."""
    figure = draw_grid(predictions, clips(6), LONG, "a title")
    write_png(tmp_path / "a.png", figure)
    width = figure.bbox.width
    texts = [text for axes in figure.axes for text in (axes._left_title, *axes.texts)]
    names = [text for text in texts if "a $" in text.get_text()]
    assert len(names) >= 4 * 6
    for text in names:
        assert "…" in text.get_text()
        assert "class " in text.get_text()
        assert text.get_window_extent().x1 <= width
    for axes in figure.axes[1::2]:
        rows = list(zip(axes.texts[::2], axes.texts[1::2], strict=True))
        assert len(rows) == 3
        for name, percent in rows:
            assert name.get_window_extent().x1 < percent.get_window_extent().x0
    write_animation(tmp_path / "a.gif", predictions, clips(6), LONG)


def test_letters_without_a_font_are_told_once(
    predictions: Predictions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("\U0001f9ff\U0001f9ff", "\ue001 \U0001f9ff", "still")
    write_png(tmp_path / "a.png", draw_grid(predictions, clips(3), names, ""))
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path / 'a.png'}: boxes stand for letters that no font here has (")
    write_animation(tmp_path / "a.gif", predictions, clips(3), names)
    assert len(caplog.messages) == 2
