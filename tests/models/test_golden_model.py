"""The model gives the numbers of the published implementation (tests/data/model_tiny.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_model import (
    CASES,
    SCHEMES,
    SOLVERS,
    STEPS,
    gradient_batch,
    solver_cfg,
    step_batch,
    tiny_model,
)
from golden_recipe import clip_for, fill_

TOLERANCE = 1e-5  # the bar is 1e-4


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "model_tiny.npz")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_state_dict_names_and_shapes(scheme, numbers):
    own = [f"{k} {tuple(v.shape)}" for k, v in tiny_model(scheme).state_dict().items()]
    assert sorted(own) == sorted(numbers[f"{scheme}/keys"])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_logits_and_features(scheme, case, fused, numbers):
    from timesformer.models.attention.layers import set_fused_attention

    model = fill_(tiny_model(scheme)).eval()
    set_fused_attention(model, fused)
    clip = clip_for(case, CASES[case], 0)
    with torch.no_grad():
        features, logits = model.forward_features(clip).numpy(), model(clip).numpy()
    np.testing.assert_allclose(logits, numbers[f"{scheme}/{case}/logits"], atol=TOLERANCE)
    np.testing.assert_allclose(features, numbers[f"{scheme}/{case}/features"], atol=TOLERANCE)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients(scheme, numbers):
    model = fill_(tiny_model(scheme)).train()
    clip, labels = gradient_batch()
    loss = F.cross_entropy(model(clip), labels)
    loss.backward()
    assert loss.item() == pytest.approx(float(numbers[f"{scheme}/grad/loss"]), abs=TOLERANCE)
    for name, parameter in model.named_parameters():
        expected = float(numbers[f"{scheme}/grad_norm/{name}"])
        assert parameter.grad.norm().item() == pytest.approx(expected, abs=1e-4), name


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_compiled_code(scheme, numbers):
    from timesformer.models.compiling import compile_blocks

    model = fill_(tiny_model(scheme))
    compile_blocks("here", model)
    case = next(iter(CASES))
    with torch.no_grad():
        logits = model.eval()(clip_for(case, CASES[case], 0)).numpy()
    np.testing.assert_allclose(logits, numbers[f"{scheme}/{case}/logits"], atol=TOLERANCE)
    clip, labels = gradient_batch()
    loss = F.cross_entropy(model.train()(clip), labels)
    loss.backward()
    assert loss.item() == pytest.approx(float(numbers[f"{scheme}/grad/loss"]), abs=TOLERANCE)
    for name, parameter in model.named_parameters():
        expected = float(numbers[f"{scheme}/grad_norm/{name}"])
        assert parameter.grad.norm().item() == pytest.approx(expected, abs=1e-4), name


@pytest.mark.parametrize("optimizer", SOLVERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_loss_trajectory(scheme, optimizer, numbers):
    """Eight steps through our own optimizer factory and training step's loss."""
    from timesformer.engine.losses import build_loss
    from timesformer.engine.optimizer import construct_optimizer

    cfg, model = solver_cfg(optimizer), fill_(tiny_model(scheme)).train()
    solver, criterion, losses = construct_optimizer(model, cfg), build_loss(cfg), []
    for i in range(STEPS):
        clip, labels = step_batch(i)
        loss = criterion(model(clip), labels)
        solver.zero_grad()
        loss.backward()
        solver.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, numbers[f"{scheme}/train/{optimizer}"], atol=1e-4)
