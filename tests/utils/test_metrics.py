"""Top-k counts and average precision."""

from __future__ import annotations

import pytest
import torch

from timesformer.utils.metrics import mean_average_precision, topk_correct


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


def test_any_of_several_labels_counts_as_right():
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 0]]).float()
    assert topk_correct(scores, labels, (1, 2, 5)) == [1, 2, 2]


def test_mean_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0]]).float()
    # class 0: ranks 1 and 3 -> (1/1 + 2/3) / 2; class 1: rank 3 -> 1/3
    assert mean_average_precision(scores, labels) == pytest.approx(100 * (5 / 6 + 1 / 3) / 2)
    assert mean_average_precision(scores, torch.zeros(4, 2)) == 0.0
    # all alike: every precision is the share of right videos; a class without videos is left out
    alike = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 0]]).float()
    assert mean_average_precision(torch.zeros(4, 2), alike) == pytest.approx(50.0)


def test_mean_average_precision_is_that_of_the_textbook_loop():
    rng = torch.Generator().manual_seed(1)
    scores, labels = torch.rand(60, 7, generator=rng), torch.rand(60, 7, generator=rng) < 0.2
    expected = []
    for k in range(7):
        hits, precisions = 0, []
        for place, video in enumerate(scores[:, k].argsort(descending=True).tolist(), 1):
            if labels[video, k]:
                hits += 1
                precisions.append(hits / place)
        expected.append(sum(precisions) / len(precisions))
    found = mean_average_precision(scores, labels.float())
    assert found == pytest.approx(100 * sum(expected) / 7, abs=1e-4)
