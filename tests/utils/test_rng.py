from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from timesformer.utils.rng import keyed_rng, seed_all


def test_a_generator_is_a_function_of_its_key() -> None:
    keys = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (0, 1, 3)]
    draws = {key: keyed_rng("clip", *key).random() for key in keys}
    assert len(set(draws.values())) == 4
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    assert keyed_rng("clip", 0, 1, 2).random() == draws[0, 1, 2]


@pytest.mark.parametrize("other", [(7, 0), (7, 0, 0, 0), (0, 7)])
def test_a_short_key_isnt_a_long_one_with_zeros(other: tuple[int, ...]) -> None:
    assert keyed_rng("clip", 7).random() != keyed_rng("clip", *other).random()


def test_purposes_are_apart() -> None:
    assert keyed_rng("clip", 7, 1).random() != keyed_rng("order", 7, 1).random()


def test_seed_all_covers_the_three_global_generators() -> None:
    def draw(*key: int) -> tuple[float, float, float]:
        seed_all("step", *key)
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    first = draw(3, 1)
    assert draw(3, 1) == first
    assert all(a != b for a, b in zip(draw(3, 2), first, strict=True))
    assert all(a != b for a, b in zip(draw(3, 1, 0), first, strict=True))
