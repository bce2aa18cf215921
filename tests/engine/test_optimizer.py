"""Optimizers: which parameters they take, and that their steps are the textbook's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.engine.optimizer import construct_optimizer, set_lr
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import ConfigError


def solver_cfg(method: str):
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD, cfg.SOLVER.WEIGHT_DECAY = method, 0.1
    return cfg


def textbook_sgd(w, grads, lr, decay, momentum=0.9):
    """Nesterov momentum in PyTorch's form: v = m·v + g; w -= lr·(g + m·v)."""
    velocity = torch.zeros_like(w)
    for grad in grads:
        grad = grad + decay * w
        velocity = momentum * velocity + grad
        w = w - lr * (grad + momentum * velocity)
    return w


def textbook_adam(w, grads, lr, decay, decoupled):
    """Kingma & Ba, Algorithm 1; with `decoupled`, Loshchilov & Hutter, Algorithm 2."""
    mean, square = torch.zeros_like(w), torch.zeros_like(w)
    for t, grad in enumerate(grads, start=1):
        grad = grad if decoupled else grad + decay * w
        mean = 0.9 * mean + 0.1 * grad
        square = 0.999 * square + 0.001 * grad**2
        step = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        w = w - lr * step - lr * decay * w * decoupled
    return w


@pytest.mark.parametrize("method", ["sgd", "adam", "adamw"])
def test_steps_and_decay_of_every_parameter(method):
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = construct_optimizer(model, solver_cfg(method))
    set_lr(optimizer, 0.05)
    before = [p.detach().clone().double() for p in model.parameters()]
    grads = [[torch.randn_like(p) for p in model.parameters()] for _ in range(4)]
    for step in grads:
        for parameter, grad in zip(model.parameters(), step, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
    for i, after in enumerate(model.parameters()):
        own = [step[i].double() for step in grads]
        if method == "sgd":
            expected = textbook_sgd(before[i], own, 0.05, 0.1)
        else:
            expected = textbook_adam(before[i], own, 0.05, 0.1, method == "adamw")
        torch.testing.assert_close(after.detach().double(), expected, atol=1e-6, rtol=1e-5)


def test_sgd_reads_its_options():
    cfg = solver_cfg("sgd")
    cfg.SOLVER.NESTEROV, cfg.SOLVER.MOMENTUM, cfg.SOLVER.DAMPENING = False, 0.5, 0.25
    (group,) = construct_optimizer(nn.Linear(1, 1), cfg).param_groups
    assert (group["nesterov"], group["momentum"], group["dampening"]) == (False, 0.5, 0.25)


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model[0].weight.requires_grad_(False)
    (group,) = construct_optimizer(model, solver_cfg("sgd")).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in list(model.parameters())[1:]]
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        construct_optimizer(model, solver_cfg("sgd"))


def test_unknown_method():
    with pytest.raises(ConfigError, match=r"SOLVER\.OPTIMIZING_METHOD 'lars'.*adamw"):
        construct_optimizer(nn.Linear(1, 1), solver_cfg("lars"))


@pytest.mark.parametrize("scheme", ["divided_space_time", "space_only"])
def test_layer_decay(scheme):
    model = TimeSformer(
        img_size=32, num_classes=5, num_frames=2, attention_type=scheme,
        embed_dim=24, depth=3, num_heads=3,
    )  # fmt: skip
    cfg = solver_cfg("adamw")
    cfg.SOLVER.LAYER_DECAY = 0.5
    optimizer = construct_optimizer(model, cfg)
    set_lr(optimizer, 0.8)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    places = {"blocks.0": 1, "blocks.1": 2, "blocks.2": 3, "norm": 3, "head": 4}
    for name, parameter in model.named_parameters():
        layer = next((i for part, i in places.items() if name.startswith(f"model.{part}")), 0)
        assert rates[id(parameter)] == pytest.approx(0.8 * 0.5 ** (4 - layer)), name
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


def test_layer_decay_needs_layers():
    cfg = solver_cfg("adamw")
    cfg.SOLVER.LAYER_DECAY = 0.5
    with pytest.raises(ConfigError, match=r"SOLVER.LAYER_DECAY 0.5 needs"):
        construct_optimizer(nn.Linear(2, 2), cfg)
