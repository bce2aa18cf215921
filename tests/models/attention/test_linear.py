"""The linear layer by oneDNN: torch's numbers and gradients; where it can't be, its operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from golden_model import gradient_batch, tiny_model
from golden_recipe import fill_
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from timesformer.models.attention import linear
from timesformer.models.attention.linear import Linear

pytestmark = pytest.mark.skipif(not linear.AVAILABLE, reason="torch is built without oneDNN")


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of what oneDNN was asked for; it is asked for the smallest products too."""
    asked: list[tuple[int, ...]] = []
    product = linear._product

    def listened(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        asked.append(tuple(x.shape))
        return product(x, weight, bias)

    monkeypatch.setattr(linear, "PAYS", True)
    monkeypatch.setattr(linear, "LEAST", 1)
    monkeypatch.setattr(linear, "_product", listened)
    return asked


@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 6), (2, 2, 3, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_numbers_and_gradients_are_torchs(
    products: list[tuple[int, ...]], shape: tuple[int, ...], bias: bool
) -> None:
    layer = Linear(6, 5, bias=bias)
    x = torch.randn(shape).transpose(0, -2).requires_grad_()  # not contiguous
    found = []
    for forward in (layer, lambda x: F.linear(x, layer.weight, layer.bias)):
        out = forward(x)
        leaves = [x, *layer.parameters()]
        grads = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True)
        again = torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)
        found.append([out, *grads, *again])
    assert len(products) >= 3  # forward and both gradients
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_only_the_gradients_that_are_asked_for(products: list[tuple[int, ...]]) -> None:
    layer, x = Linear(6, 5).requires_grad_(False), torch.randn(3, 6, requires_grad=True)
    layer(x).sum().backward()
    assert len(products) == 2
    assert layer.weight.grad is None
    assert layer(x.detach()).requires_grad is False


def test_it_follows_the_weights(products: list[tuple[int, ...]]) -> None:
    layer, x = Linear(6, 5), torch.randn(3, 6)
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(2)
        layer.load_state_dict({"weight": layer.weight, "bias": 2 * layer.bias})
        torch.testing.assert_close(layer(x), 2 * before)
    assert len(products) == 2


def test_torchs_operator_where_another_one_is_not_known(products: list[tuple[int, ...]]) -> None:
    layer, x = Linear(6, 5), torch.randn(3, 6)
    expected = F.linear(x, layer.weight, layer.bias)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * 3 * 6 * 5
    program = torch.export.export(layer, (x,))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert names == {"aten.linear.default"}
    with pytest.warns(FutureWarning):  # others trace by it still
        traced = torch.jit.trace(layer, x, check_trace=False)
    found = [
        program.module()(x),
        traced(x),
        torch.vmap(layer)(x),
        torch.func.functional_call(layer.double(), dict(layer.named_parameters()), x.double()),
    ]
    for out in found:
        torch.testing.assert_close(out.float(), expected)
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        assert torch.equal(layer(x), expected)
    assert layer(x[:0]).shape == (0, 5)
    assert not products


def test_small_products_are_torchs() -> None:
    layer, x = Linear(6, 5), torch.randn(3, 6)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert isinstance(layer, nn.Linear)


@pytest.mark.parametrize("scheme", ["space_only", "joint_space_time", "divided_space_time"])
def test_a_model_computes_by_it(products: list[tuple[int, ...]], scheme: str) -> None:
    found = []
    for least in (1, 2**62):
        linear.LEAST = least  # the fixture puts it back
        model = fill_(tiny_model(scheme)).train()
        clip, labels = gradient_batch()
        logits = model(clip)
        F.cross_entropy(logits, labels).backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    steps = 7 if scheme == "divided_space_time" else 4
    assert len(products) == 3 * steps * len(model.blocks)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def both() -> tuple[Linear, nn.Linear]:
    ours, theirs = Linear(6, 5), nn.Linear(6, 5)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_forward_mode_derivatives_are_not_lost(products: list[tuple[int, ...]]) -> None:
    """Where nothing is differentiated backwards, oneDNN's operator dropped tangents silently."""
    layers, x = both(), torch.randn(2, 3, 6)
    for layer in layers:
        layer.requires_grad_(False)
    with fwAD.dual_level():
        given = fwAD.make_dual(x, torch.ones_like(x))
        ours, theirs = (fwAD.unpack_dual(layer(given)).tangent for layer in layers)
    assert ours is not None
    torch.testing.assert_close(ours, theirs)
    assert products == []


def test_one_row_and_several_gradients_at_once(products: list[tuple[int, ...]]) -> None:
    for shape in ((6,), (2, 3, 6)):
        x, found = torch.randn(shape, requires_grad=True), []
        for layer in both():
            layer.weight.data.fill_(0.5)
            out = layer(x)
            gradients = torch.stack([torch.ones_like(out), out.detach()])
            kept = {"retain_graph": True}
            one = torch.autograd.grad(out, [x, layer.weight], gradients[1], **kept)
            many = torch.autograd.grad(out, x, gradients, is_grads_batched=True)
            found.append([*one, *many])
        torch.testing.assert_close(*found)
    assert products


def test_what_comes_out_can_be_changed_in_place(products: list[tuple[int, ...]]) -> None:
    x = torch.randn(2, 3, 6)
    layer = Linear(6, 5)
    layer(x).add_(1).relu_().sum().backward()
    assert products


@pytest.mark.usefixtures("products")
def test_another_width_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Linear(6, 5)(torch.randn(2, 3, 4))
