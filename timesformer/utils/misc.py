"""Random generators that are functions of a key, so nothing depends on which process asks."""

from __future__ import annotations

import random

import numpy as np
import torch


def keyed_rng(*key: int) -> np.random.Generator:
    """Return a generator that depends on ``key`` alone, e.g. ``keyed_rng(seed, epoch, index)``.

    Args:
        key: integers >= 0; their order matters.
    """
    return np.random.default_rng(list(key))


def seed_all(*key: int) -> None:
    """Seed the global generators of torch, numpy and ``random`` from one key.

    Model initialisation, DropPath and mixup draw from these; data never does.
    """
    words = np.random.SeedSequence(list(key)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (timm's mixup draws from numpy's global state)
    torch.manual_seed(int(words[2]))
