"""What is asked of tensors."""

from __future__ import annotations

import math

import pytest
import torch

from timesformer.utils.tensors import all_finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(dtype: torch.dtype) -> None:
    assert all_finite(torch.empty(0, dtype=dtype))
    for size in (1, 7, 1000):
        for bad in (math.nan, math.inf, -math.inf):
            for place in (0, size // 2, size - 1):
                numbers = torch.linspace(-3, 3, size).to(dtype)
                assert all_finite(numbers)
                numbers[place] = bad
                assert not all_finite(numbers)
                assert not all_finite(numbers.expand(3, -1).t())
