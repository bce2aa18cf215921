"""How well features tell classes apart, in three numbers. docs/embed.md says what they mean.

Shape letters: V videos, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

NEIGHBOURS = 5
FOLDS = 5
LEAST = FOLDS  # videos of a class; each fold holds out one
STEPS = 1_000  # of the probe's solver
ROWS = 1_024  # whose similarities to all others are held at once, or fewer:
SIMILARITIES = 2**24  # 128 MiB
ROUNDING = 1e-9  # of a distance: what is less is none

Matrix = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Scores:
    """What is known of one model's features. All but the silhouette are shares from 0 to 1.

    Attributes:
        videos: that count: those of classes with at least LEAST.
        classes: that count.
        left_out: videos of smaller classes.
        silhouette: mean silhouette coefficient by cosine distance, -1 to 1.
        knn: accuracy of a majority of NEIGHBOURS, each video left out in turn.
        probe: accuracy of a linear classifier on the fold that is held out, of FOLDS.
        chance: the share of the largest class, which whoever always says it gets right.
    """

    videos: int
    classes: int
    left_out: int
    silhouette: float
    knn: float
    probe: float
    chance: float

    @property
    def text(self) -> str:
        """The numbers in a line."""
        shares = (f"{NEIGHBOURS}-NN", self.knn), ("linear", self.probe), ("chance", self.chance)
        told = (f"{name} {100 * share:.1f} %" for name, share in shares)
        return " · ".join((f"silhouette {self.silhouette:.2f}", *told))


def score(features: Matrix, labels: Labels, seed: int = 0) -> Scores | None:
    """Score features (V, D) with labels (V,); None if fewer than two classes are large enough."""
    found, counts = np.unique(labels, return_counts=True)
    large = found[counts >= LEAST]
    if len(large) < 2:
        return None
    kept = np.isin(labels, large)
    rows, own = features[kept].astype(np.float64), labels[kept]
    return Scores(
        videos=len(own),
        classes=len(large),
        left_out=len(labels) - len(own),
        silhouette=silhouette(rows, own),
        knn=knn_accuracy(rows, own),
        probe=probe_accuracy(rows, own, seed),
        chance=float(counts.max() / len(own)),
    )


def silhouette(features: Matrix, labels: Labels) -> float:
    """Mean silhouette coefficient by cosine distance, of classes of two videos or more.

    The distances of a video to all of a class add up to their number less its product with the sum
    of their directions, so it takes V·K·D products where distances of pairs take V·V·D.
    """
    rows = normalize(features)
    _, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.stack([rows[own == k].sum(0) for k in range(len(counts))])
    values = np.empty(len(rows))
    for start in range(0, len(rows), ROWS):
        some, mine = rows[start : start + ROWS], own[start : start + ROWS]
        far, place = counts - some @ sums.T, np.arange(len(some))
        itself = 1 - (some**2).sum(1)  # 0, or 1 of features that are all 0
        inside = (far[place, mine] - itself) / (counts[mine] - 1)
        far /= counts
        far[place, mine] = np.inf
        outside = far.min(1)
        inside, outside = (np.where(d < ROUNDING, 0, d) for d in (inside, outside))
        larger = np.maximum(inside, outside)
        values[start : start + ROWS] = (outside - inside) / np.where(larger > 0, larger, 1)
    return float(values.mean())


def nearest(
    features: Matrix, count: int = NEIGHBOURS, of: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Return of videos the most similar others by cosine, nearest first: (Q, count).

    Of equals the first; where there are fewer others, all of them.

    Args:
        features: (V, D).
        count: how many.
        of: the videos (Q,); all when None.
    """
    rows = normalize(features.astype(np.float64))
    asked = np.arange(len(rows)) if of is None else np.asarray(of, np.int64)
    count = min(count, len(rows) - 1)
    found = np.empty((len(asked), count), np.int64)
    block = max(1, min(ROWS, SIMILARITIES // len(rows)))
    for start in range(0, len(asked), block):
        own = asked[start : start + block]
        similar = rows[own] @ rows.T
        similar[np.arange(len(own)), own] = -np.inf
        found[start : start + block] = _greatest(similar, count)
    return found


def _greatest(values: Matrix, count: int) -> NDArray[np.int64]:
    """Return where each row has its greatest: (Q, count), the greatest first, of equals the first.

    Only those that may be among them are sorted: all that reach the count-th greatest.
    """
    if not count:
        return np.empty((len(values), 0), np.int64)
    place = values.shape[1] - count
    least = np.partition(values, place, axis=1)[:, place]
    row, column = np.nonzero(values >= least[:, None])
    order = np.lexsort((column, -values[row, column], row))
    first = np.searchsorted(row, np.arange(len(values)))
    return column[order][first[:, None] + np.arange(count)]


def knn_accuracy(features: Matrix, labels: Labels, count: int = NEIGHBOURS) -> float:
    """Share of videos whose nearest others are of their class, by majority.

    Of classes that as many neighbours are of, the one of the nearest neighbour counts.
    """
    own = labels[nearest(features, count)]  # (V, count)
    votes = (own[:, :, None] == own[:, None, :]).sum(2)
    return float((own[np.arange(len(own)), votes.argmax(1)] == labels).mean())


def probe_accuracy(features: Matrix, labels: Labels, seed: int = 0) -> float:
    """Accuracy of a linear classifier on what it wasn't fitted to.

    Logistic regression on features that are standardised by the folds it is fitted to, with
    scikit-learn's default penalty (C = 1); five folds, each with its share of every class.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    with warnings.catch_warnings():
        # What the steps have reached is what is measured.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cross_val_predict(model, features, labels, cv=folds)
    return float((found == labels).mean())
