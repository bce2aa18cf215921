from __future__ import annotations

import random

import numpy as np
import torch

from timesformer.utils.misc import keyed_rng, seed_all


def test_a_generator_is_a_function_of_its_key() -> None:
    draws = {key: keyed_rng(*key).random() for key in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (0, 1, 3)]}
    assert len(set(draws.values())) == 4
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    assert keyed_rng(0, 1, 2).random() == draws[0, 1, 2]


def test_seed_all_covers_the_three_global_generators() -> None:
    def draw(*key: int) -> tuple[float, float, float]:
        seed_all(*key)
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    first = draw(3, 1)
    assert draw(3, 1) == first
    assert all(a != b for a, b in zip(draw(3, 2), first, strict=True))
