"""Epochs in which rare classes come more often than their videos alone would."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from timesformer.utils.rng import keyed_rng

Ints = npt.NDArray[np.int64]


class BalancedEpochs:
    """Which videos an epoch draws: as many as there are, a class of n videos ∝ n^(1 - balance).

    Over the epochs a class goes round and round through its videos, in a new order each time, so
    all of them come equally often. What an epoch draws is a function of (seed, epoch).

    Attributes:
        quotas: draws of each class in an epoch (K,), the same in every epoch.
    """

    def __init__(self, labels: npt.ArrayLike, balance: float, seed: int) -> None:
        """Count the classes.

        Args:
            labels: the class of each video (N,).
            balance: 0 leaves the classes as they are, 1 draws each of them equally often.
            seed: of the run.
        """
        known = np.asarray(labels)
        self.seed = seed
        counts = np.bincount(known)
        self._videos = np.split(np.argsort(known, kind="stable"), np.cumsum(counts)[:-1])
        self.quotas = quotas(counts, balance)

    def draw(self, epoch: int) -> tuple[Ints, Ints]:
        """Return the videos of an epoch (N,), and how often each has come in it before (N,)."""
        pairs = enumerate(zip(self._videos, self.quotas.tolist(), strict=True))
        drawn = np.concatenate([self._of_class(k, v, n, epoch) for k, (v, n) in pairs if n])
        before = earlier(drawn)
        order = keyed_rng("order", self.seed, epoch).permutation(len(drawn))
        return drawn[order], before[order]

    def _of_class(self, label: int, videos: Ints, quota: int, epoch: int) -> Ints:
        """Return the draws `epoch` × quota and following, from rounds that have all videos once."""
        first, length = epoch * quota, len(videos)
        rounds = range(first // length, (first + quota - 1) // length + 1)
        orders = [keyed_rng("round", self.seed, label, r).permutation(length) for r in rounds]
        return videos[np.concatenate(orders)[first % length :][:quota]]


def quotas(counts: npt.ArrayLike, balance: float) -> Ints:
    """Return how often an epoch draws each class (K,), in all as many times as there are videos.

    Shares are rounded to the largest remainders, of equal ones to the lower class. A class that has
    videos is drawn; one that has none isn't.

    Args:
        counts: videos of each class (K,).
        balance: see `BalancedEpochs`.
    """
    n = np.asarray(counts, float)
    weights = np.where(n > 0, np.maximum(n, 1.0) ** (1.0 - balance), 0.0)
    shares = n.sum() * weights / weights.sum()
    whole = np.floor(shares + 1e-9).astype(np.int64)
    left = int(n.sum()) - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:left]] += 1
    return whole


def earlier(values: Ints) -> Ints:
    """Return how many of the values before each one equal it (N,)."""
    order = np.argsort(values, kind="stable")
    place = np.arange(len(values))
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))
    lengths = np.diff(starts, append=len(values))
    before = np.empty_like(place)
    before[order] = place - np.repeat(starts, lengths)
    return before
