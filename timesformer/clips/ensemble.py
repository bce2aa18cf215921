"""From the scores of a video's views to the video's.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

from torch import Tensor


def ensemble(per_view: Tensor, method: str, multi_label: bool = False) -> Tensor:
    """Join the scores of a video's views: (V, n, K) -> (V, K).

    "sum" of logits is what the published code does, "prob" (averaged softmax; sigmoid with several
    labels) what the paper says; "max" takes the largest logit of any view.

    Raises:
        ValueError: for another method.
    """
    if method == "sum":
        return per_view.sum(dim=1)
    if method == "max":
        return per_view.amax(dim=1)
    if method == "prob":
        return (per_view.sigmoid() if multi_label else per_view.softmax(dim=-1)).mean(dim=1)
    raise ValueError(f"unknown ensemble method {method!r}: sum, max or prob")


def probabilities(scores: Tensor, method: str, views: int, multi_label: bool = False) -> Tensor:
    """Return class probabilities (V, K) that rank classes as the scores of `ensemble` do.

    Args:
        scores: (V, K).
        method: how they were joined.
        views: n.
        multi_label: each class has a probability of its own.
    """
    if method == "prob":
        return scores
    logits = scores / views if method == "sum" else scores
    return logits.sigmoid() if multi_label else logits.softmax(dim=-1)
