"""Layers that timm has too: the same weights' names, numbers and random numbers."""

from __future__ import annotations

import timm.layers
import torch

from timesformer.models.attention.layers import DropPath, Mlp


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
