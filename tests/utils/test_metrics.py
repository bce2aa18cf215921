"""Top-k counts and average precision."""

from __future__ import annotations

import pytest
import torch

from timesformer.utils.metrics import mean_average_precision, mean_class_accuracy, topk_correct


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


def test_mean_class_accuracy_is_that_of_a_plain_count():
    """Classes 3 and 7 have no video; some scores can't be read, some are equal."""
    rng = torch.Generator().manual_seed(2)
    scores = torch.randint(4, (300, 9), generator=rng).float()
    scores[::11] = torch.nan
    labels = torch.randint(9, (300,), generator=rng)
    labels[(labels == 3) | (labels == 7)] = 0
    right, rows = [0] * 9, [0] * 9
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        rows[label] += 1
        right[label] += row[0] == row[0] and row.index(max(row)) == label  # NaN is not itself
    shares = [r / n for r, n in zip(right, rows, strict=True) if n]
    assert len(shares) == 7
    expected = 100 * sum(shares) / 7
    assert mean_class_accuracy(scores, labels) == pytest.approx(expected, rel=1e-12)
    assert abs(expected - 100 * sum(right) / 300) > 0.1  # another number than top-1
    assert mean_class_accuracy(scores[:0], labels[:0]) == 0.0


def test_mean_class_accuracy_by_hand():
    scores = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert mean_class_accuracy(scores, torch.tensor([0, 0, 0, 2])) == 50.0
