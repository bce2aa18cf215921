"""The moving average of the weights: what it is, where it is kept, and who uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_cfg, stats

from timesformer.commands.convert import main as convert
from timesformer.commands.run import run
from timesformer.engine import evaluate
from timesformer.engine import step as step_module
from timesformer.engine import train as module
from timesformer.engine.train import train
from timesformer.models.create import from_pretrained
from timesformer.utils.checkpoint import (
    bare,
    get_last_checkpoint,
    get_path_to_best,
    numbered_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from timesformer.utils.errors import ConfigError, WeightsError

OPTIONS: dict[str, Any] = {"EMA__ENABLED": True, "EMA__DECAY": 0.75, "TEST__ENABLE": False}
WARM = OPTIONS | {"EMA__WARMUP": True, "EMA__DECAY": 0.5}
State = dict[str, torch.Tensor]


def weights_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Collects the weights before the first step and after each one of the runs to come."""
    real, seen = module.train_step, list[State]()

    def copy(state: Any) -> State:
        return {name: value.clone() for name, value in bare(state.model).state_dict().items()}

    def step(state: Any, *args: Any) -> Any:
        if not seen:
            seen.append(copy(state))
        result = real(state, *args)
        seen.append(copy(state))
        return result

    monkeypatch.setattr(module, "train_step", step)
    return seen


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("options", [OPTIONS, WARM], ids=["plain", "warm"])
def test_the_average_is_that_of_its_formula(synthetic_dir, tmp_path, monkeypatch, options):
    with monkeypatch.context() as patch:
        seen = weights_of_steps(patch)
        train(small_cfg(synthetic_dir, tmp_path, **options))
    first, *steps = seen
    expected = {name: value.double() for name, value in first.items()}
    for n, weights in enumerate(steps):
        decay = min(options["EMA__DECAY"], 1 - (n + 1) ** (-2 / 3)) if options is WARM else 0.75
        for name, value in weights.items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    content = read_checkpoint(get_last_checkpoint(tmp_path))
    assert content["ema_updates"] == len(steps) == 6
    for name, value in content["ema_state"].items():
        assert torch.allclose(value, expected[name].float(), atol=1e-6), name
    assert not equal(content["ema_state"], content["model_state"])


def test_it_changes_nothing_else_and_both_are_validated(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path / "with", **OPTIONS))
    train(small_cfg(synthetic_dir, tmp_path / "without", TEST__ENABLE=False))
    one, two = (
        read_checkpoint(get_last_checkpoint(tmp_path / name)) for name in ("with", "without")
    )
    assert equal(one["model_state"], two["model_state"])
    assert "ema_state" not in two
    for ours, theirs in zip(
        stats(tmp_path / "with", "val"), stats(tmp_path / "without", "val"), strict=True
    ):
        assert {name: ours[name] for name in theirs} == theirs
        more = {"ema_top1_acc", "ema_top5_acc", "ema_mean_class_acc", "ema_loss"}
        assert ours.keys() - theirs.keys() == more
        assert ours["ema_loss"] != ours["loss"]


def test_a_step_that_is_left_out_is_not_followed(synthetic_dir, tmp_path, monkeypatch):
    real_scaler, real_clip, done = torch.amp.GradScaler, step_module.clip_gradients, list[int]()

    def clip(state: Any) -> torch.Tensor:
        done.append(0)
        if len(done) == 2:
            next(p for p in state.model.parameters() if p.grad is not None).grad.fill_(torch.inf)
        return real_clip(state)

    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: real_scaler("cpu"))
    monkeypatch.setattr(step_module, "clip_gradients", clip)
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS, TRAIN__EVAL_PERIOD=0))
    assert "this step is left out" in (tmp_path / "run.log").read_text()
    assert read_checkpoint(get_last_checkpoint(tmp_path))["ema_updates"] == 5


def test_who_takes_which(synthetic_dir, tmp_path, monkeypatch):
    """A test as its config says; all others as the run was to be tested; convert can choose."""
    tested = list[State]()
    real = evaluate.perform_test
    monkeypatch.setattr(
        evaluate,
        "perform_test",
        lambda cfg, model, *args: (tested.append(model.state_dict()), real(cfg, model, *args))[1],
    )
    options = OPTIONS | {"TEST__ENABLE": True, "TEST__WEIGHTS": "ema", "TEST__CHECKPOINT": "best"}
    run(small_cfg(synthetic_dir, tmp_path, **options))
    best = read_checkpoint(get_path_to_best(tmp_path))
    assert "ema_top1_acc" in best["validation"]
    assert equal(tested[-1], best["ema_state"])
    assert stats(tmp_path, "test_final")[-1]["weights"] == "ema"
    run(small_cfg(synthetic_dir, tmp_path, TRAIN__ENABLE=False, TEST__CHECKPOINT="best"))
    assert equal(tested[-1], best["model_state"])
    assert stats(tmp_path, "test_final")[-1]["weights"] == "raw"

    path = str(get_path_to_best(tmp_path))
    assert equal(from_pretrained(path).state_dict(), best["ema_state"])
    for which, key in (("raw", "model_state"), ("ema", "ema_state")):
        target = str(tmp_path / f"{which}.pyth")
        convert([path, target, "--to", "native", "--weights", which])
        assert equal(read_checkpoint(target)["model_state"], best[key])
    options = {"TRAIN__ENABLE": False, "TEST__WEIGHTS": "ema"}
    cfg = small_cfg(synthetic_dir, tmp_path, **options, TEST__CHECKPOINT_FILE_PATH=target)
    with pytest.raises(WeightsError, match=r"ema\.pyth: has no moving average beside its weights"):
        run(cfg)


def test_the_average_needs_one(synthetic_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"TEST\.WEIGHTS ema needs .* EMA\.ENABLED True"):
        small_cfg(synthetic_dir, tmp_path, TEST__WEIGHTS="ema")


def test_it_begins_where_a_run_goes_on_without_one(synthetic_dir, tmp_path, monkeypatch):
    options = {"TEST__ENABLE": False, "TRAIN__EVAL_PERIOD": 0, "SOLVER__WARMUP_EPOCHS": 0}
    train(small_cfg(synthetic_dir, tmp_path, **options, SOLVER__MAX_EPOCH=1))
    trained = read_checkpoint(get_last_checkpoint(tmp_path))["model_state"]
    seen = weights_of_steps(monkeypatch)
    train(small_cfg(synthetic_dir, tmp_path, **options | OPTIONS, SOLVER__MAX_EPOCH=2))
    content = read_checkpoint(get_last_checkpoint(tmp_path))
    assert equal(seen[0], trained)
    assert content["ema_updates"] == 3
    assert (
        "has no moving average: it begins with the weights there"
        in (tmp_path / "run.log").read_text()
    )


@pytest.mark.parametrize("spoilt", [{"ema_updates": -1}, {"ema_state": {}}, {"ema_state": [1]}])
def test_a_damaged_average_is_refused(synthetic_dir, tmp_path, spoilt: dict[str, Any]):
    options = OPTIONS | {"TRAIN__EVAL_PERIOD": 0, "SOLVER__WARMUP_EPOCHS": 0}
    train(small_cfg(synthetic_dir, tmp_path, **options, SOLVER__MAX_EPOCH=1))
    path: Path = numbered_checkpoints(tmp_path)[0]
    write_checkpoint(path, read_checkpoint(path) | spoilt)
    with pytest.raises(WeightsError, match="its ema_state is"):
        train(small_cfg(synthetic_dir, tmp_path, **options))
