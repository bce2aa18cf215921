"""Attention weights and rollout, against their definition written out densely."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.explain.attention_maps import attention_maps, token_shares
from timesformer.models.network.vision_transformer import VisionTransformer

SCHEMES = [name for name, _ in ATTENTION_REGISTRY]
T, H, W = 3, 2, 4  # all different, so that a wrong order of axes shows


def model_of(scheme: str, **options: Any) -> VisionTransformer:
    assert "attention_type" in inspect.signature(VisionTransformer).parameters
    model = VisionTransformer(
        img_size=(16 * H, 16 * W),
        embed_dim=24,
        depth=3,
        num_heads=4,
        num_frames=T,
        num_classes=5,
        attention_type=scheme,
        qkv_bias=True,
        **options,
    )
    for parameter in model.parameters():  # extra steps start at zero
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def clip() -> Tensor:
    return torch.randn(2, 3, T, 16 * H, 16 * W)


def to_dense(scheme: str, weights: dict[str, Tensor]) -> Tensor:
    """The rollout matrix of the first clip, (1 + N·T, 1 + N·T), tokens CLS first, then (h w t)."""
    N = H * W
    rollout = torch.eye(1 + N * T)
    place = torch.arange(1, 1 + N * T).view(H, W, T)

    def apply(matrix: Tensor, rows: Tensor) -> None:
        """One step: its rows are averaged with the identity, the others stay."""
        nonlocal rollout
        whole = torch.eye(1 + N * T)
        whole[rows] = (whole[rows] + matrix[rows]) / 2
        rollout = whole @ rollout

    for block in range(3):
        if scheme == "joint_space_time":
            apply(weights[f"blocks.{block}.attn"][0, 0].mean(0), torch.arange(1 + N * T))
            continue
        time = torch.zeros(1 + N * T, 1 + N * T)
        for n, sequence in enumerate(weights[f"blocks.{block}.temporal_attn"][0].mean(1)):
            tokens = place.view(N, T)[n]
            time[tokens[:, None], tokens] = sequence
        apply(time, place.flatten())
        space = torch.zeros(1 + N * T, 1 + N * T)
        for t, sequence in enumerate(weights[f"blocks.{block}.attn"][0].mean(1)):
            tokens = torch.cat([torch.zeros(1, dtype=torch.long), place[..., t].flatten()])
            space[tokens[1:, None], tokens] = sequence[1:]
            space[0, tokens] += sequence[0] / T
        apply(space, torch.arange(1 + N * T))
    return rollout


@pytest.mark.parametrize("scheme", ["joint_space_time", "divided_space_time"])
def test_rollout_is_the_product_of_its_matrices(scheme: str) -> None:
    model, x = model_of(scheme), clip()
    weights = attention_maps(model, x)
    shares, _ = token_shares(model, x)
    expected = to_dense(scheme, weights)[0]
    torch.testing.assert_close(expected.sum(), torch.tensor(1.0))
    torch.testing.assert_close(shares[0], expected[1:].view(H, W, T).permute(2, 0, 1))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_has_shares_and_is_left_alone(scheme: str) -> None:
    model, x = model_of(scheme), clip()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        logits = model(x)
    for method in ("rollout", "gradient"):
        shares, found = token_shares(model, x, method)
        assert shares.shape == (2, T, H, W)
        assert (shares >= 0).all()
        assert shares.flatten(1).std(1).min() > 0
        torch.testing.assert_close(found, logits)
        one, _ = token_shares(model, x[1:], method)
        torch.testing.assert_close(one[0], shares[1])
        if method == "rollout":
            assert (shares.sum((1, 2, 3)) <= 1 + 1e-6).all()
            without_cls = shares.sum((1, 2, 3)).allclose(torch.ones(2))
            assert without_cls is not bool(model.num_prefix_tokens)
    with torch.no_grad():
        assert torch.equal(model(x), logits)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_are_averages(scheme: str) -> None:
    for name, weights in attention_maps(model_of(scheme), clip()).items():
        assert weights.shape[0] == 2, name
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_gradient_is_about_a_class() -> None:
    model, x = model_of("divided_space_time"), clip()
    one, other = (token_shares(model, x, "gradient", torch.tensor([k, k]))[0] for k in (0, 1))
    assert not torch.allclose(one, other)
