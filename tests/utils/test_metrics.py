"""Top-k counts."""

from __future__ import annotations

import pytest
import torch

from timesformer.utils.metrics import topk_correct


@pytest.mark.parametrize("k", [1, 3, 5])
def test_topk_equals_torch_topk(k):
    scores = torch.randn(200, 12)
    labels = torch.randint(12, (200,))
    expected = (scores.topk(k).indices == labels[:, None]).any(dim=1).sum().item()
    assert topk_correct(scores, labels, (k,)) == [expected]


def test_topk_with_fewer_classes_than_k():
    scores = torch.tensor([[0.1, 0.9, 0.2], [0.5, 0.4, 0.3]])
    assert topk_correct(scores, torch.tensor([2, 0]), (1, 2, 5)) == [1, 2, 2]


def test_ties_go_to_the_lower_class():
    assert topk_correct(torch.zeros(3, 4), torch.tensor([0, 1, 3]), (1, 2, 5)) == [1, 2, 3]


def test_nan_is_never_right():
    nan = torch.tensor([[float("nan"), 1.0, 2.0], [0.0, float("nan"), 1.0]])
    assert topk_correct(nan, torch.tensor([0, 2]), (1, 5)) == [0, 1]
