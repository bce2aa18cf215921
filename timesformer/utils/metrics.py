"""Classification metrics as counts, so that sums over batches and ranks stay exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def topk_correct(scores: Tensor, labels: Tensor, ks: Sequence[int]) -> list[int]:
    """Return `topk_counts` as numbers, for which a GPU is waited for."""
    counts: list[int] = topk_counts(scores, labels, ks).tolist()
    return counts


def topk_counts(scores: Tensor, labels: Tensor, ks: Sequence[int]) -> Tensor:
    """Count rows of which a label is among the k best scores.

    A row counts as right at k when fewer than k classes score higher, ties resolved towards the
    lower class; so the count doesn't depend on the device's sort, and with fewer than k classes
    every row is right. A label whose score is NaN is never right.

    Args:
        scores: (V, K).
        labels: (V,) integers in [0, K), or (V, K) zeros and ones where a row has several labels.
        ks: the k to count for.

    Returns:
        One count for each k, on the scores' device.
    """
    rank = _ranks(scores, labels)
    return torch.stack([(rank < k).sum() for k in ks])


def mean_class_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Mean over classes of the share of their rows that are right at top-1, in percent.

    A class without a row doesn't count; without any row it is 0. What is right, `topk_correct`
    says.

    Args:
        scores: (V, K).
        labels: (V,) integers in [0, K).
    """
    rows = labels.bincount(minlength=scores.shape[1])
    right = labels[_ranks(scores, labels) < 1].bincount(minlength=scores.shape[1])
    there = rows > 0
    shares = right[there].double() / rows[there]
    return 100.0 * float(shares.mean()) if len(shares) else 0.0


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before each row's label (V,); no k has a row without one."""
    if labels.dim() == 2:  # the best of a row's labels stands for it; no label, never right
        own = scores.masked_fill(labels == 0, -torch.inf).nan_to_num(nan=-torch.inf)
        unlabelled, labels = labels.sum(dim=1) == 0, own.argmax(dim=1)
        scores = scores.masked_fill(unlabelled[:, None], torch.nan)
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    better = (scores > own) | ((scores == own) & (classes < labels[:, None])) | scores.isnan()
    return better.sum(dim=1).masked_fill(own[:, 0].isnan(), torch.iinfo(torch.long).max)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over classes of the average precision, in percent; 0 if no class has a video.

    The average precision of a class is the mean, over its videos, of the precision at the place
    where each stands in the ranking. Equal scores share the place of the last of them, so the
    order of videos doesn't matter. Classes without a video don't count.

    Args:
        scores: (V, K).
        labels: (V, K) zeros and ones.
    """
    precisions = []
    for k in range(scores.shape[1]):
        own = scores[labels[:, k] > 0, k]
        if len(own):
            at_least = (scores[None, :, k] >= own[:, None]).sum(dim=1)
            right = (own[None] >= own[:, None]).sum(dim=1)
            precisions.append((right / at_least).mean())
    return 100.0 * float(torch.stack(precisions).mean()) if precisions else 0.0
