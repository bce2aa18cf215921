"""What a run says at the end of an epoch of model and loader."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small_run import small_cfg, stats
from torch import nn

from timesformer.engine import pace
from timesformer.engine.pace import Pace
from timesformer.engine.train import train
from timesformer.models.build import meta_model
from timesformer.models.profiling import count_macs


def epoch(wait: float, first: float = 0.0) -> dict[str, float]:
    """Of 100 s, at 8 clips/s."""
    said = {"clips_per_s": 8.0, "step_seconds": 100.0, "data_wait": wait, "data_wait_first": first}
    return {name: float(value) for name, value in said.items()}


@pytest.fixture
def make(synthetic_dir, tmp_path, monkeypatch):
    def make(cores: float = 8.0, workers: int = 2, ranks: int = 1, **changes: object) -> Pace:
        monkeypatch.setattr(pace, "cores_of_rank", lambda: cores)
        state = SimpleNamespace(
            cfg=small_cfg(synthetic_dir, tmp_path, **changes),
            device=torch.device("cpu"),
            model=nn.Linear(2, 2),
            layout=SimpleNamespace(ranks=ranks),
        )
        return Pace(state, SimpleNamespace(num_workers=workers))

    return make


@pytest.mark.parametrize(
    ("wait", "first", "limit", "said"),
    [
        (0.02, 0.0, "model", "the model was the limit: it waited for videos 2 % of the time"),
        (0.30, 25.0, "model", "30 % of the time, 25 s of it for the first"),
        (
            0.50,
            0.0,
            "loader",
            "Without it would be 16 clips/s: a rank has 8 cores, set DATA_LOADER",
        ),
    ],
)
def test_the_limit_is_named(make, caplog, wait, first, limit, said):
    with caplog.at_level("INFO", logger="timesformer"):
        found = make().judge(4, epoch(wait, first))
    assert found == {"mfu": None, "limit": limit}
    assert "epoch 5: 8 clips/s; " in caplog.text
    assert said in caplog.text


def test_the_advice_is_what_is_left_to_do(make, caplog):
    with caplog.at_level("INFO", logger="timesformer"):
        make(cores=8, workers=0).judge(0, epoch(0.5))
        make(cores=8, workers=7).judge(0, epoch(0.5))
    more, copies = caplog.messages
    assert more.endswith("set DATA_LOADER.NUM_WORKERS 7 instead of 0, or auto")
    assert "prepare-data" in copies


def test_mfu_is_of_the_peak_of_all_ranks(make, monkeypatch, synthetic_dir, tmp_path):
    monkeypatch.setattr(pace, "peak_rate", lambda device, amp: 1e-6)
    options = {"TRAIN__TUBE_KEEP": 0.5, "SOLVER__MAX_EPOCH": 4}
    made = make(ranks=2, **options)
    cfg = small_cfg(synthetic_dir, tmp_path, **options)
    macs = count_macs(meta_model(cfg), (3, 4, 64, 64))
    assert made.judge(3, epoch(0.0))["mfu"] == pytest.approx(8 * 6 * macs / 2e6)
    assert made.judge(0, epoch(0.0))["mfu"] is None  # of epochs that leave patches out


def test_a_run_says_it(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=1, TRAIN__EVAL_PERIOD=0))
    (line,) = stats(tmp_path, "train_epoch")
    assert line["mfu"] is None
    assert line["limit"] in ("model", "loader")
    assert 0 < line["data_wait"] < 1
    assert line["clips_per_s"] == pytest.approx(24 / line["step_seconds"], rel=1e-5)
    assert "was the limit" in (tmp_path / "run.log").read_text()
