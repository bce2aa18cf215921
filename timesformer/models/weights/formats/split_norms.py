"""Norms of split batches (PySlowFast's SubBatchNorm3d, arXiv 1912.00998) as plain ones.

PySlowFast writes plain ones itself. A state dict that somebody saved has, beside weight and bias,
the statistics of each split (split_bn, one split behind the other), and those of the whole (bn.bn)
as they were when the model was last evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from timesformer.models.weights.formats.names import put

_SPLIT = ".split_bn."
_WHOLE = ".bn."  # within the norm


def matches(state: Mapping[str, Any]) -> bool:
    """Whether there are norms of split batches."""
    return any(_SPLIT in key for key in state)


def joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with plain norms, whose statistics are those of all splits.

    Raises:
        ValueError: two entries have one name, or a norm isn't whole.
    """
    plain: dict[str, Tensor] = {}
    norms = {key.partition(_SPLIT)[0] for key in state if _SPLIT in key}
    for key, value in state.items():
        norm, split, name = key.partition(_SPLIT)
        if split:
            joint = _statistics(state, norm)[name] if name.startswith("running_") else value
            put(plain, f"{norm}.{name}", joint, key)
        elif key.rpartition(_WHOLE)[0] not in norms:
            of_norm = key.rpartition(".")[0] in norms
            put(plain, key, value.flatten() if of_norm else value, key)  # once (C, 1, 1, 1)
    return plain


def _statistics(state: Mapping[str, Tensor], norm: str) -> dict[str, Tensor]:
    """Return mean and variance over all splits of a norm."""
    names = [f"{norm}.weight", f"{norm}{_SPLIT}running_mean", f"{norm}{_SPLIT}running_var"]
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"{missing[0]} is missing in a norm of split batches")
    weight, means, variances = (state[name] for name in names)
    channels = weight.numel()
    if not channels or means.numel() % channels or means.shape != variances.shape:
        raise ValueError(f"{names[1]}: {means.numel()} values can't be split into {channels}")
    means, variances = means.float().view(-1, channels), variances.float().view(-1, channels)
    mean = means.mean(dim=0)
    return {
        "running_mean": mean,
        "running_var": variances.mean(dim=0) + (means - mean).square().mean(dim=0),
    }
