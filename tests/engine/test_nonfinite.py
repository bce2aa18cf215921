"""Steps that are not finite: the run ends, or goes on as if they hadn't been."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_cfg, stats
from torch import nn

from timesformer.clips.augment import ClipAugment
from timesformer.engine import nonfinite
from timesformer.engine import train as module
from timesformer.engine.nonfinite import NonFinite
from timesformer.engine.train import train
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.errors import TrainingError

ROW = 5  # of the training list; its clip is spoilt in the first epoch
SKIP = {
    "TRAIN__NONFINITE": "skip",
    "EMA__ENABLED": True,
    "TEST__ENABLE": False,
    "TRAIN__CHECKPOINT_STEPS": 1,
}


def spoil(monkeypatch: pytest.MonkeyPatch, *rows: int) -> None:
    real = ClipAugment.__call__

    def augment(self: ClipAugment, pixels: Any, index: Any, view: Any, epoch: int) -> Any:
        inputs = real(self, pixels, index, view, epoch)
        for i, row in enumerate(index.tolist()):
            if row in rows and epoch == 0:
                inputs[i] = torch.nan
        return inputs

    monkeypatch.setattr(ClipAugment, "__call__", augment)


def name_of(data: Path, row: int) -> str:
    return re.escape((data / "train.csv").read_text().splitlines()[row].split()[0])


def everything(state: Any) -> list[torch.Tensor]:
    optimizer = [v for kept in state.optimizer.state.values() for v in kept.values()]
    average = state.ema.module.state_dict().values() if state.ema else ()
    tensors = [*state.model.state_dict().values(), *optimizer, *average]
    return [t.clone() for t in tensors if isinstance(t, torch.Tensor)]


def test_a_run_ends_and_names_the_video(synthetic_dir, tmp_path, monkeypatch):
    spoil(monkeypatch, ROW)
    expected = (
        rf"loss is not finite in epoch 1, step \d \(rows \[{ROW}\] of the training list: "
        rf"\S*{name_of(synthetic_dir, ROW)} \(\S*train.csv, line {ROW + 1}\)\): .*NONFINITE skip"
    )
    with pytest.raises(TrainingError, match=expected):
        train(small_cfg(synthetic_dir, tmp_path))


def test_a_step_is_left_out_and_the_run_resumes_to_the_bit(synthetic_dir, tmp_path, monkeypatch):
    spoil(monkeypatch, ROW)
    seen: list[bool] = []
    real = module.train_step

    def step(state: Any, *args: Any) -> Any:
        before = everything(state)
        result = real(state, *args)
        same = len(before) == len(everything(state)) and all(
            map(torch.equal, before, everything(state))
        )
        assert same == result.left_out
        assert not result.left_out or all(p.grad is None for p in state.model.parameters())
        seen.append(result.left_out)
        return result

    monkeypatch.setattr(module, "train_step", step)
    train(small_cfg(synthetic_dir, tmp_path / "straight", **SKIP))
    assert sum(seen) == 1
    assert len(seen) == 6
    left_out = 1 + seen.index(True)
    log = (tmp_path / "straight" / "run.log").read_text()
    (line,) = (line for line in log.splitlines() if "left out" in line)
    assert f"step {left_out}: this step is left out (rows [{ROW}] of the training list: " in line
    epochs = stats(tmp_path / "straight", "train_epoch")
    assert [epoch["skipped_steps"] for epoch in epochs] == [1, 0]
    assert all(epoch["loss"] > 0 for epoch in epochs)
    losses = [line["loss"] for line in stats(tmp_path / "straight", "train_iter")]
    assert [loss is None for loss in losses] == seen

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_step", lambda *args: 1 / 0 if len(seen) == 9 else step(*args))
        with pytest.raises(ZeroDivisionError):
            train(small_cfg(synthetic_dir, tmp_path / "cut", **SKIP))
    train(small_cfg(synthetic_dir, tmp_path / "cut", **SKIP))
    one, two = (read_checkpoint(get_last_checkpoint(tmp_path / n)) for n in ("straight", "cut"))
    assert all(torch.equal(one["model_state"][k], v) for k, v in two["model_state"].items())
    again = stats(tmp_path / "cut", "train_epoch")
    for key in ("loss", "skipped_steps", "top1_err"):
        assert [e[key] for e in again] == [e[key] for e in epochs]


def test_too_many_in_a_row_end_the_run(synthetic_dir, tmp_path, monkeypatch):
    spoil(monkeypatch, *range(24))
    monkeypatch.setattr(nonfinite, "IN_A_ROW", 3)
    with pytest.raises(TrainingError, match=r"step 3 \(.*the first: .*as in the 2 steps before"):
        train(small_cfg(synthetic_dir, tmp_path, **SKIP))
    assert (tmp_path / "run.log").read_text().count("this step is left out") == 2


def test_loss_scaling_goes_on_as_if_the_step_hadnt_been(synthetic_dir, tmp_path, monkeypatch):
    spoil(monkeypatch, ROW)
    real, step = torch.amp.GradScaler, module.train_step
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: real("cpu", init_scale=4.0))
    scalers = []

    def watched(state: Any, *args: Any) -> Any:
        result = step(state, *args)
        scalers.append((state.scaler.state_dict(), result.left_out))
        return result

    monkeypatch.setattr(module, "train_step", watched)
    train(small_cfg(synthetic_dir, tmp_path, **SKIP))
    tracked = [state["_growth_tracker"] for state, _ in scalers]
    assert {state["scale"] for state, _ in scalers} == {4.0}
    skipped = [left_out for _, left_out in scalers].index(True)
    assert tracked == [*range(1, skipped + 1), *range(skipped, 6)]


def test_statistics_of_batchnorm_are_put_back():
    model = nn.BatchNorm1d(3)
    policy = NonFinite("skip", [])
    policy.before(model)
    model(torch.full((2, 3), torch.nan))
    assert not model.running_mean.isfinite().all()
    policy.leave_out("loss is not finite", "epoch 1, step 1", [], model)
    assert model.running_mean.equal(torch.zeros(3))
    assert int(model.num_batches_tracked) == 0
