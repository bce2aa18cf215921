"""AdamW with moments of 8 bits, that of bitsandbytes: its steps, and its checkpoints."""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from small_run import small_cfg
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.config.validate import check
from timesformer.engine.optimizer import construct_optimizer
from timesformer.engine.saving import predicted_bytes
from timesformer.engine.train import train
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.eight_bit import gathered_bytes
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.tensors import fitting_state, stored_bytes

OPTIONS = {
    "SOLVER__OPTIMIZING_METHOD": "adamw8bit",
    "TIMESFORMER__EMBED_DIM": 48,  # matrices of more than 4,096 numbers
    "TEST__ENABLE": False,
    "TRAIN__EVAL_PERIOD": 0,
}


def method(name: str) -> Any:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD = name
    return cfg


def stepped(model: nn.Module, name: str) -> torch.optim.Optimizer:
    optimizer, inputs = construct_optimizer(model, method(name)), torch.randn(64, 80)
    for _ in range(5):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    return optimizer


def test_steps_are_nearly_those_of_adamw() -> None:
    pytest.importorskip("bitsandbytes")
    before = nn.Sequential(nn.Linear(80, 80), nn.GELU(), nn.Linear(80, 5))
    models = [deepcopy(before) for _ in range(2)]
    torch.manual_seed(1)
    stepped(models[0], "adamw")
    torch.manual_seed(1)
    optimizer = stepped(models[1], "adamw8bit")
    start, exact, rounded = (
        nn.utils.parameters_to_vector(m.parameters()) for m in (before, *models)
    )
    assert 0 < (rounded - exact).norm() < 0.1 * (exact - start).norm()
    own = optimizer.state[models[1][0].weight]
    assert own["state1"].dtype == own["state2"].dtype == torch.uint8
    assert optimizer.state[models[1][2].weight]["state1"].dtype == torch.float32
    parameters = [*models[1].parameters()]
    kept = stored_bytes(optimizer.state_dict())
    # The levels are the same for all tensors, and stored once.
    assert 0 <= sum(map(gathered_bytes, parameters)) - kept <= 2 * 1024 * len(parameters)
    assert predicted_bytes(models[1], optimizer) > 0


def test_a_run_goes_on_bit_for_bit(synthetic_dir, tmp_path) -> None:
    pytest.importorskip("bitsandbytes")
    train(small_cfg(synthetic_dir, tmp_path / "a", **OPTIONS))
    train(small_cfg(synthetic_dir, tmp_path / "b", **OPTIONS), steps=4)  # of 3 an epoch
    train(small_cfg(synthetic_dir, tmp_path / "b", **OPTIONS))
    a, b = (read_checkpoint(get_last_checkpoint(tmp_path / name)) for name in "ab")
    assert all(torch.equal(w, b["model_state"][name]) for name, w in a["model_state"].items())


@pytest.mark.parametrize("damage", ["shape", "type", "missing", "nan", "step", "others"])
def test_a_state_that_does_not_fit(damage: str) -> None:
    pytest.importorskip("bitsandbytes")
    model = nn.Linear(80, 80)
    optimizer = stepped(model, "adamw8bit")
    state = deepcopy(optimizer.state_dict())
    assert fitting_state("f", state, optimizer)["state"] is state["state"]
    kept = state["state"][0]["__bnb_optimizer_quant_state__"]
    if damage == "shape":
        kept["state1"] = kept["state1"][1:]
    elif damage == "type":
        kept["state1"] = kept["state1"].float()
    elif damage == "missing":
        del kept["absmax1"]
    elif damage == "nan":
        kept["absmax1"][0] = torch.nan
    elif damage == "step":
        state["state"][0]["step"] = "5"
    else:
        state = stepped(model, "adamw").state_dict()
    with pytest.raises(WeightsError, match="f: its optimizer state doesn't fit"):
        fitting_state("f", state, optimizer)


def test_what_cannot_be(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=r"adamw8bit is bitsandbytes'.*timesformer\[eightbit\]"):
        construct_optimizer(nn.Linear(2, 2), method("adamw8bit"))
    cfg = method("adamw8bit")
    cfg.TRAIN.SHARDING = "fsdp"
    with pytest.raises(ConfigError, match="adamw8bit can't keep parts"):
        check(cfg)
