"""Numbers against a few lines of numpy, and against what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score

from timesformer.embed import METHODS
from timesformer.embed.projection import project
from timesformer.embed.scores import (
    _greatest,
    knn_accuracy,
    nearest,
    probe_accuracy,
    score,
    silhouette,
)
from timesformer.utils.errors import UserError


def clusters(spread: float, each: int = 12, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(classes, 16))
    labels = np.repeat(np.arange(classes), each)
    features = middles[labels] + spread * rng.normal(size=(len(labels), 16))
    order = rng.permutation(len(labels))
    return features[order].astype(np.float32), labels[order]


def test_planted_clusters_are_found() -> None:
    found = score(*clusters(0.1))
    assert found is not None
    assert found.knn == found.probe == 1.0
    assert found.silhouette > 0.9
    assert (found.videos, found.classes, found.chance) == (48, 4, 0.25)


def test_without_clusters_there_are_none() -> None:
    features, labels = clusters(0.1)
    found = score(np.random.default_rng(1).normal(size=features.shape), labels)
    assert found is not None
    assert max(found.knn, found.probe) < 0.5
    assert abs(found.silhouette) < 0.1


def by_hand(features: np.ndarray, labels: np.ndarray, k: int) -> float:
    right = 0
    for i, row in enumerate(features):
        cosine = features @ row / np.linalg.norm(features, axis=1)
        cosine[i] = -np.inf
        near = labels[np.argsort(-cosine)[:k]].tolist()
        right += max(near, key=near.count) == labels[i]  # of equals the first, the nearest
    return right / len(labels)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_knn_by_hand(k: int) -> None:
    features, labels = clusters(1.0)
    expected = by_hand(features.astype(np.float64), labels, k)
    assert 0.3 < expected < 1
    assert knn_accuracy(features, labels, k) == expected


def test_nearest_never_finds_itself_and_not_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.array([[1, 0], [9, 1], [1, 1], [0, 1], [0.1, 0]], np.float32)
    expected = nearest(features, 3)
    assert expected[0].tolist() == [4, 1, 2]
    monkeypatch.setattr("timesformer.embed.scores.ROWS", 2)
    assert (nearest(features, 3) == expected).all()
    assert nearest(features, 9).shape == (5, 4)


@pytest.mark.parametrize("count", [0, 1, 5, 39])
def test_of_equals_the_first_are_nearest(count: int) -> None:
    values = np.random.default_rng(0).integers(-2, 3, (7, 40)).astype(np.float64)
    values[np.arange(7), np.arange(7)] = -np.inf
    expected = np.argsort(-values, axis=1, kind="stable")[:, :count]
    assert (_greatest(values, count) == expected).all()


def test_only_the_videos_that_are_asked_about() -> None:
    features, _ = clusters(1.0)
    asked = [40, 3, 7]
    assert (nearest(features, 4, asked) == nearest(features, 4)[asked]).all()


def test_silhouette_is_scikit_learns() -> None:
    features, labels = clusters(0.8)
    features[5] = 0
    features[labels == 3] = features[labels == 3][0]  # all at one spot
    features[labels == 1] = features[labels == 3][0]  # and another class there
    expected = silhouette_score(features.astype(np.float64), labels, metric="cosine")
    assert silhouette(features.astype(np.float64), labels) == pytest.approx(expected, abs=1e-9)


def test_silhouette_by_hand() -> None:
    features, labels = clusters(0.8)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    far = 1 - unit.astype(np.float64) @ unit.T
    values = []
    for i, label in enumerate(labels):
        same = labels == label
        own = far[i, same].sum() / (same.sum() - 1)
        other = min(far[i, labels == c].mean() for c in {*labels} - {label})
        values.append((other - own) / max(own, other))
    found = score(features, labels)
    assert found is not None
    assert found.silhouette == pytest.approx(np.mean(values), abs=1e-5)


def test_the_probe_is_tested_on_what_it_wasnt_fitted_to() -> None:
    """As many features as videos fit any labels; only held out videos show that it's nothing."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 80)), np.arange(60) % 2
    fitted = LogisticRegression(max_iter=1000).fit(features, labels)
    assert fitted.score(features, labels) == 1.0
    assert probe_accuracy(features, labels) < 0.75
    assert probe_accuracy(features, labels, 1) == probe_accuracy(features, labels, 1)


def test_the_probe_doesnt_mind_the_scale_of_a_feature() -> None:
    features, labels = clusters(0.6)
    scaled = features * np.logspace(-4, 4, 16)
    assert probe_accuracy(scaled, labels) == probe_accuracy(features, labels) > 0.9


def test_small_classes_are_left_out() -> None:
    features, labels = clusters(0.1)
    few = labels.copy()
    few[np.flatnonzero(labels == 0)[4:]] = 1  # a class of 4
    found = score(features, few)
    assert found is not None
    assert (found.classes, found.left_out, found.videos) == (3, 4, 44)
    assert found.chance == pytest.approx(20 / 44)
    assert score(features, np.zeros(len(labels), int)) is None
    assert score(features[:4], np.arange(4)) is None


@pytest.mark.parametrize("method", METHODS)
def test_projections_keep_clusters_and_are_repeatable(method: str) -> None:
    features, labels = clusters(0.05)
    found = project(features, method, 3)
    assert (project(features, method, 3).coordinates == found.coordinates).all()
    far = np.linalg.norm(found.coordinates[:, None] - found.coordinates, axis=2)
    same = labels[:, None] == labels
    assert far[same].max() < far[~same].min()
    by_length = project(features * np.linspace(1, 9, len(labels))[:, None], method, 3)
    np.testing.assert_allclose(by_length.coordinates, found.coordinates, atol=1e-2)


def test_few_videos() -> None:
    features, _ = clusters(1.0)
    assert project(features[:5]).coordinates.shape == (5, 2)
    with pytest.raises(UserError, match="at least 5 videos, and 4 are there"):
        project(features[:4], "pca")
    with pytest.raises(UserError, match="same features"):
        project(np.ones((9, 3), np.float32) * np.arange(1, 10)[:, None])
