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


def model_of(
    scheme: str, sizes: tuple[int, int, int] = (T, H, W), **options: Any
) -> VisionTransformer:
    assert "attention_type" in inspect.signature(VisionTransformer).parameters
    model = VisionTransformer(
        img_size=(16 * sizes[1], 16 * sizes[2]),
        embed_dim=24,
        depth=3,
        num_heads=4,
        num_frames=sizes[0],
        num_classes=5,
        attention_type=scheme,
        qkv_bias=True,
        **options,
    )
    for parameter in model.parameters():  # extra steps start at zero
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def clip(sizes: tuple[int, int, int] = (T, H, W)) -> Tensor:
    return torch.randn(2, 3, sizes[0], 16 * sizes[1], 16 * sizes[2])


def steps_of(scheme: str, place: Tensor) -> dict[str, tuple[list[Tensor], bool]]:
    """The tokens of each sequence of a block's steps, in order, and whether CLS joins them.

    Args:
        scheme: one that has CLS once a clip.
        place: number of each patch's token (h, w, t); CLS is 0.
    """
    h, w, t = place.shape
    time = [place[i, j] for i in range(h) for j in range(w)], False
    space = [place[..., k].flatten() for k in range(t)], True
    rows = [place[i, :, k] for i in range(h) for k in range(t)], False
    columns = [place[:, j, k] for j in range(w) for k in range(t)], True
    halves = [(slice(0, n // 2), slice(n // 2, n)) for n in (h, w)]
    quadrants = [place[i, j].flatten() for i in halves[0] for j in halves[1]], False
    parities = [
        place[i::2, j::2, k::2].flatten() for i in range(2) for j in range(2) for k in range(2)
    ]
    return {
        "joint_space_time": {"attn": ([place.flatten()], True)},
        "divided_space_time": {"temporal_attn": time, "attn": space},
        "space_then_time": {"attn": space, "temporal_attn": (time[0], True)},
        "axial": {"temporal_attn": time, "width_attn": rows, "attn": columns},
        "sparse_local_global": {"local_attn": quadrants, "attn": (parities, True)},
    }[scheme]


def to_dense(scheme: str, weights: dict[str, Tensor], sizes: tuple[int, int, int]) -> Tensor:
    """The rollout matrix of the first clip, (1 + N·T, 1 + N·T), tokens CLS first, then (h w t)."""
    frames, h, w = sizes
    count = 1 + h * w * frames
    rollout = torch.eye(count)
    place = torch.arange(1, count).view(h, w, frames)
    for block in range(3):
        for name, (sequences, with_cls) in steps_of(scheme, place).items():
            step = torch.zeros(count, count)
            for tokens, heads in zip(sequences, weights[f"blocks.{block}.{name}"][0], strict=True):
                attention = heads.mean(0)
                if not with_cls:
                    step[tokens[:, None], tokens] = attention
                    continue
                seen = torch.cat([torch.zeros(1, dtype=torch.long), tokens])
                step[tokens[:, None], seen] = attention[1:]
                step[0, seen] += attention[0] / len(sequences)  # the mean over copies
            if not with_cls:
                step[0, 0] = 1  # it takes no part
            rollout = (torch.eye(count) + step) / 2 @ rollout
    return rollout


@pytest.mark.parametrize(
    ("scheme", "sizes"),
    [
        ("joint_space_time", (T, H, W)),
        ("divided_space_time", (T, H, W)),
        ("space_then_time", (T, H, W)),
        ("axial", (T, H, W)),
        ("sparse_local_global", (2, 4, 6)),
    ],
)
def test_rollout_is_the_product_of_its_matrices(scheme: str, sizes: tuple[int, int, int]) -> None:
    model, x = model_of(scheme, sizes), clip(sizes)
    weights = attention_maps(model, x)
    shares, _ = token_shares(model, x)
    expected = to_dense(scheme, weights, sizes)[0]
    torch.testing.assert_close(expected.sum(), torch.tensor(1.0))
    frames, h, w = sizes
    torch.testing.assert_close(shares[0], expected[1:].view(h, w, frames).permute(2, 0, 1))


def test_one_layer_is_read_without_making_the_matrices_of_others() -> None:
    model, x = model_of("divided_space_time"), clip()
    wanted = "blocks.2.temporal_attn"
    made = []
    for name, part in model.named_modules():
        if name.endswith("attn_drop"):
            part.register_forward_hook(lambda *_, name=name: made.append(name))
    found = attention_maps(model, x, [wanted])
    assert (list(found), made) == ([wanted], [f"{wanted}.attn_drop"])
    torch.testing.assert_close(found[wanted], attention_maps(model, x)[wanted])


def test_rollout_of_space_only_is_that_of_each_frame() -> None:
    model, x = model_of("space_only"), clip()
    shares, _ = token_shares(model, x)
    weights = attention_maps(model, x)
    for t in range(T):
        rollout = torch.eye(1 + H * W)
        for block in range(3):
            attention = weights[f"blocks.{block}.attn"][0, t].mean(0)
            rollout = (torch.eye(1 + H * W) + attention) / 2 @ rollout
        torch.testing.assert_close(shares[0, t], rollout[0, 1:].view(H, W) / T)


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
