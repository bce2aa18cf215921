"""From features to a picture's plane: t-SNE or PCA.

Shape letters: V videos, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from timesformer.embed import LEAST_VIDEOS
from timesformer.embed.features import BlindModelError
from timesformer.embed.scores import Matrix
from timesformer.utils.errors import UserError

PERPLEXITY = 30.0


class Projection(NamedTuple):
    """Where videos lie in the plane.

    Attributes:
        coordinates: (V, 2).
        means: by which they are found, the same for all features of so many videos.
        kept: what the plane keeps of these features, "" where nothing says it.
    """

    coordinates: NDArray[np.float32]
    means: str
    kept: str = ""


def directions(features: Matrix) -> Matrix:
    """Scale features (V, D) to length 1.

    Raises:
        BlindModelError: all have the same.
    """
    rows = normalize(features.astype(np.float64))
    if np.ptp(rows, axis=0).max() < 1e-9:
        raise BlindModelError(
            "all videos have the same features: the model doesn't tell them apart"
        )
    return rows


def project(features: Matrix, method: str = "tsne", seed: int = 0) -> Projection:
    """Lay features (V, D) into the plane, each scaled to length 1: what counts is their direction.

    The same features, seed and versions of the libraries give the same picture.

    Args:
        features: of at least LEAST_VIDEOS.
        method: tsne or pca.
        seed: of t-SNE; PCA draws nothing.

    Raises:
        UserError: there are too few videos.
        BlindModelError: all have the same features.
    """
    if len(features) < LEAST_VIDEOS:
        raise UserError(
            f"a picture needs at least {LEAST_VIDEOS} videos, and {len(features)} are there"
        )
    rows = directions(features)
    if method == "pca":
        pca = PCA(2, svd_solver="full")
        found, share = pca.fit_transform(rows), pca.explained_variance_ratio_.sum()
        kept = f"{100 * share:.0f} % of the variance"
        return Projection(found.astype(np.float32), "PCA", kept)
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    # One thread: in which order several add up isn't always the same.
    with threadpool_limits(1):
        found = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)
    return Projection(found.astype(np.float32), f"t-SNE, perplexity {perplexity:.3g}")
