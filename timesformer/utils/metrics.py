"""Classification metrics as counts, so that sums over batches and ranks stay exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def topk_correct(scores: Tensor, labels: Tensor, ks: Sequence[int]) -> list[int]:
    """Counts rows whose label is among the k best scores.

    A row counts as right at k when fewer than k classes score higher, ties resolved towards the
    lower class; so the count doesn't depend on the device's sort, and with fewer than k classes
    every row is right. A label whose score is NaN is never right.

    Args:
        scores: (V, K).
        labels: (V,) integers in [0, K).
        ks: the k to count for.

    Returns:
        One count for each k.
    """
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    better = (scores > own) | ((scores == own) & (classes < labels[:, None])) | scores.isnan()
    rank = better.sum(dim=1).masked_fill(own[:, 0].isnan(), scores.shape[1] + max(ks))
    return [int((rank < k).sum()) for k in ks]
