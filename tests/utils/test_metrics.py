"""Top-k counts, meters and JSON lines."""

from __future__ import annotations

import json

import pytest
import torch

from timesformer.utils.logging import log_json_stats
from timesformer.utils.meters import TrainMeter
from timesformer.utils.metrics import topk_correct


def test_topk_equals_torch_topk():
    scores = torch.randn(200, 12)
    labels = torch.randint(12, (200,))
    for k in (1, 3, 5):
        expected = (scores.topk(k).indices == labels[:, None]).any(dim=1).sum().item()
        assert topk_correct(scores, labels, (k,)) == [expected]


def test_topk_with_fewer_classes_than_k():
    scores = torch.tensor([[0.1, 0.9, 0.2], [0.5, 0.4, 0.3]])
    assert topk_correct(scores, torch.tensor([2, 0]), (1, 2, 5)) == [1, 2, 2]


def test_ties_go_to_the_lower_class_and_nan_is_wrong():
    assert topk_correct(torch.zeros(3, 4), torch.tensor([0, 1, 3]), (1, 2)) == [1, 2]
    nan = torch.tensor([[float("nan"), 1.0, 2.0], [0.0, float("nan"), 1.0]])
    assert topk_correct(nan, torch.tensor([0, 2]), (1, 5)) == [0, 1]


def test_meter_divides_sums_once():
    meter = TrainMeter(epoch=1, max_epoch=4, steps=3)
    for sums in ([8.0, 2, 0, 4], [2.0, 1, 1, 1]):
        meter.data_ready()
        meter.update(sums, lr=0.1)
    stats = meter.iter_stats(step=1)
    assert stats["loss"] == pytest.approx(10 / 5)
    assert stats["top1_err"] == pytest.approx(100 * 3 / 5)
    assert stats["top5_err"] == pytest.approx(100 * 1 / 5)
    assert (stats["epoch"], stats["iter"]) == ("2/4", "2/3")
    assert 0 <= stats["dt_data"] <= stats["dt"]
    meter.data_ready()
    meter.update([4.0, 0, 0, 1], lr=0.1)
    assert meter.iter_stats(step=2)["loss"] == pytest.approx(4.0)  # since the last line only
    assert meter.epoch_stats()["loss"] == pytest.approx(14 / 6)


def test_json_lines_are_appended_and_hold_only_json(tmp_path, capsys):
    log_json_stats({"split": "a", "loss": 0.123456789, "lr": 5e-5}, str(tmp_path))
    log_json_stats({"split": "b", "loss": float("nan")}, str(tmp_path))
    lines = (tmp_path / "stats.jsonl").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert json.loads(lines[0]) == {"split": "a", "loss": 0.1234568, "lr": 5e-5}
    assert json.loads(lines[1])["loss"] is None
