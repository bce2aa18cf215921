"""Random generators that are functions of a key, so nothing depends on which process asks."""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch


def keyed_rng(purpose: str, *key: int) -> np.random.Generator:
    """Return a generator that depends on its arguments alone, e.g. `keyed_rng("clip", seed, 7)`.

    Args:
        purpose: what is drawn; other purposes draw other numbers from the same key.
        key: integers >= 0; their number and order matter.
    """
    return np.random.default_rng(_words(purpose, key))


def seed_all(purpose: str, *key: int) -> None:
    """Seed the global generators of torch, numpy and `random`, as `keyed_rng` does its own.

    Model initialisation, DropPath and mixup draw from these; data never does.
    """
    words = np.random.SeedSequence(_words(purpose, key)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (timm's mixup draws from numpy's global state)
    torch.manual_seed(int(words[2]))


def _words(purpose: str, key: tuple[int, ...]) -> list[int]:
    """Put the length first: numpy fills short keys up with zeros, so (7,) would equal (7, 0)."""
    return [zlib.crc32(purpose.encode()), len(key), *key]
