"""Layers that timm has too: the same weights' names, numbers and random numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.models.attention import layers
from timesformer.models.attention.dropping import DropPath
from timesformer.models.attention.layers import Attention, Mlp


def test_mlp_is_timms() -> None:
    ours, theirs = Mlp(6, 10, drop=0.3), timm.layers.Mlp(6, 10, drop=0.3)
    theirs.load_state_dict(ours.state_dict())
    x, out = torch.randn(2, 5, 6), []
    for mlp in (ours, theirs):
        torch.manual_seed(1)
        out.append(mlp.train()(x))
    assert torch.equal(*out)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert Mlp(6, out_features=3)(x).shape == (2, 5, 3)


def test_drop_path_is_timms() -> None:
    x = torch.randn(64, 3, 2)
    for rate in (0.0, 0.3, 1.0):
        out = []
        for layer in (DropPath(rate), timm.layers.DropPath(rate)):
            torch.manual_seed(1)
            out.append(layer.train()(x))
        assert torch.equal(*out)
        assert torch.equal(DropPath(rate).eval()(x), x)


def test_mlp_overwrites_nothing_that_somebody_sees() -> None:
    mlp, x, seen = Mlp(6, 10), torch.randn(2, 5, 6), []
    with torch.no_grad():
        expected = mlp.fc2(F.gelu(mlp.fc1(x)))
        assert torch.equal(mlp(x), expected)
        mlp.fc1.register_forward_hook(lambda *call: seen.append(call[2]))
        assert torch.equal(mlp(x), expected)
        assert torch.equal(seen[0], mlp.fc1(x))
        other = Mlp(6, 10, act_layer=partial(nn.GELU, approximate="tanh"))
        other.load_state_dict(mlp.state_dict())
        assert torch.equal(other(x), mlp.fc2(F.gelu(mlp.fc1(x), approximate="tanh")))
    before = x.clone()
    with torch.no_grad():
        mlp.fc1 = nn.Identity()
        mlp.fc2 = nn.Identity()
        mlp(x)
    assert torch.equal(x, before)


def test_mlp_takes_no_second_tensor_where_nobody_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp, x = Mlp(6, 10), torch.randn(2, 5, 6)
    called = []
    monkeypatch.setattr(nn.GELU, "forward", lambda _, x: called.append(1) or F.gelu(x))
    with torch.no_grad():
        mlp(x)
    assert not called
    mlp(x)
    assert called


def test_mlp_overwrites_nothing_where_a_forward_was_put_into_a_layer() -> None:
    mlp, x, seen = Mlp(6, 10), torch.randn(2, 5, 6), []
    forward = mlp.fc1.forward
    mlp.fc1.forward = lambda x: seen.append(forward(x)) or seen[0]
    with torch.no_grad():
        mlp(x)
        assert torch.equal(seen[0], forward(x))


@pytest.mark.parametrize("masked", [False, True])
def test_many_sequences_are_attended_in_parts(
    monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    attention, x = Attention(12, 3), torch.randn(7, 5, 12, requires_grad=True)
    mask = torch.arange(5) < torch.arange(1, 8)[:, None] if masked else None
    sdpa, rows, found = F.scaled_dot_product_attention, [], []

    def listened(q: Tensor, *rest: Any, **options: Any) -> Tensor:
        rows.append(len(q))
        return sdpa(q, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", listened)
    for most in (7, 3):
        monkeypatch.setattr(layers, "MOST_ROWS", most)
        out = attention(x, mask)
        found.append([out, *torch.autograd.grad(out.sin().sum(), [x, *attention.parameters()])])
    assert rows == [7, 3, 3, 1]
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole)
