"""Contract of every registered attention scheme: a new one is tested before its author tests it."""

from __future__ import annotations

import pytest
import torch
from golden_model import tiny_model
from golden_recipe import clip_for, fill_
from torch import Tensor

from timesformer.models.attention import ATTENTION_REGISTRY, TokenGrid
from timesformer.models.layers import set_fused_attention

SCHEMES = [name for name, _ in ATTENTION_REGISTRY]
GRID = TokenGrid(batch=2, frames=3, height=2, width=4)  # h != w
STILL_VIDEO_SCHEMES = ("space_only", "divided_space_time")


def small_model(scheme: str, **changes):
    return tiny_model(scheme, embed_dim=24, depth=2, num_classes=5, **changes)


def masked_attention(attention: torch.nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Dense attention where query i sees key j only if mask[i, j]."""
    B, L, D = x.shape
    q, k, v = attention.qkv(x).reshape(B, L, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)) * (D // attention.num_heads) ** -0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return attention.proj((weights @ v).transpose(1, 2).reshape(B, L, D))


def coordinates(grid: TokenGrid) -> tuple[Tensor, Tensor]:
    """Frame and patch number of every patch token, time fastest."""
    token = torch.arange(grid.frames * grid.height * grid.width)
    return token % grid.frames, token // grid.frames


def oracle_joint(block, x, grid):
    full = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
    return x + masked_attention(block.attn, block.norm1(x), full)


def oracle_space_only(block, x, grid):
    """All frames as one long sequence, where tokens see only their own frame."""
    L = x.shape[1]
    clip = x.reshape(grid.batch, grid.frames * L, -1)
    frame = torch.arange(grid.frames).repeat_interleave(L)
    out = clip + masked_attention(block.attn, block.norm1(clip), frame[:, None] == frame)
    return out.reshape(x.shape)


def oracle_divided(block, x, grid):
    frame, patch = coordinates(grid)
    cls, patches = x[:, :1], x[:, 1:]
    same_patch = patch[:, None] == patch
    time_step = masked_attention(block.temporal_attn, block.temporal_norm1(patches), same_patch)
    patches = patches + block.temporal_fc(time_step)
    # One copy of CLS a frame, in front; each sees its frame and itself only.
    T = grid.frames
    tokens = torch.cat([cls.expand(-1, T, -1), patches], dim=1)
    frame = torch.cat([torch.arange(T), frame])
    step = masked_attention(block.attn, block.norm1(tokens), frame[:, None] == frame)
    cls = cls + step[:, :T].mean(dim=1, keepdim=True)
    return torch.cat([cls, patches + step[:, T:]], dim=1)


ORACLES = {
    "joint_space_time": oracle_joint,
    "space_only": oracle_space_only,
    "divided_space_time": oracle_divided,
}


def test_every_scheme_has_an_oracle():
    assert sorted(SCHEMES) == sorted(ORACLES)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_equals_dense_attention_under_its_mask(scheme, fused):
    model = fill_(small_model(scheme), seed=5).eval()
    set_fused_attention(model, fused)
    tokens = GRID.height * GRID.width
    if model.one_sequence_per_clip:
        x = torch.randn(GRID.batch, 1 + tokens * GRID.frames, 24)
    else:
        x = torch.randn(GRID.batch * GRID.frames, 1 + tokens, 24)
    block = model.blocks[1]
    torch.testing.assert_close(
        block.attend(x, GRID), ORACLES[scheme](block, x, GRID), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_parameter_gets_a_gradient(scheme):
    model = fill_(small_model(scheme), seed=1).train()
    model(clip_for("grad", (2, 3, 4, 64, 64))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(1, 3, 1, 64, 64), (2, 3, 7, 32, 80), (1, 3, 4, 16, 16)])
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_other_sizes_than_built_for_and_eval_is_deterministic(scheme, shape):
    model = fill_(small_model(scheme, drop_path_rate=0.5, drop_rate=0.2, attn_drop_rate=0.2)).eval()
    clip = clip_for("size", shape)
    logits = model(clip)
    assert logits.shape == (shape[0], 5)
    assert torch.equal(logits, model(clip))


@pytest.mark.parametrize("scheme", STILL_VIDEO_SCHEMES)
@torch.no_grad()
def test_still_video_is_the_image_model(scheme):
    """With fresh time weights, any number of equal frames gives the features of the image."""
    model = small_model(scheme).eval()
    image = clip_for("still", (2, 3, 1, 64, 64))
    torch.testing.assert_close(
        model.forward_features(image.expand(-1, -1, 6, -1, -1)),
        model.forward_features(image),
        atol=2e-6,
        rtol=0,
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_batch_rows_do_not_mix(scheme):
    model = fill_(small_model(scheme)).eval()
    clips = clip_for("rows", (3, 3, 4, 64, 64))
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in clips])
        torch.testing.assert_close(model(clips), alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_activation_checkpointing_changes_nothing(scheme):
    clip, gradients = clip_for("ckpt", (2, 3, 4, 64, 64)), []
    for act_checkpoint in (False, True):
        model = fill_(small_model(scheme, act_checkpoint=act_checkpoint, drop_path_rate=0.3))
        torch.manual_seed(3)
        model.train()(clip).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_drop_path_drops_rows_of_the_right_batch(scheme):
    """Every residual branch draws once per row of its folded batch."""
    model = small_model(scheme, drop_path_rate=0.9).train()
    rows = []
    model.blocks[1].drop_path.register_forward_hook(lambda m, args, out: rows.append(len(out)))
    model(clip_for("rows", (2, 3, 4, 64, 64)))
    B, T, N = 2, 4, 16
    expected = {
        "space_only": [B * T, B * T],
        "joint_space_time": [B, B],
        "divided_space_time": [B * N, B * T, B],
    }
    assert rows == expected[scheme]


def test_fresh_weights():
    model = tiny_model("divided_space_time")
    assert not model.time_embed.any()
    for block in model.blocks:
        assert not block.temporal_fc.weight.any()
        assert not block.temporal_fc.bias.any()
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not block.attn.qkv.bias.any()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_scratch_weights():
    model = tiny_model("divided_space_time", init="scratch")
    assert model.pos_embed.std().item() == pytest.approx(0.5, rel=0.1)
    assert model.time_embed.abs().max().item() == pytest.approx(1.0)
    assert model.time_embed[0].unique(dim=0).shape[0] == 4  # every frame differs
    assert not model.blocks[0].temporal_fc.weight.any()
    with pytest.raises(ValueError, match="image or scratch"):
        tiny_model("divided_space_time", init="random")


def test_input_errors_say_what_is_wrong():
    model = tiny_model("joint_space_time")
    with pytest.raises(ValueError, match=r"\(B, C, T, H, W\)"):
        model(torch.zeros(3, 4, 64, 64))
    with pytest.raises(ValueError, match="60×64"):
        model(torch.zeros(1, 3, 4, 60, 64))


def test_attention_weights_can_be_read_on_the_plain_path():
    model = small_model("joint_space_time").eval()
    set_fused_attention(model, False)
    maps = []
    model.blocks[0].attn.attn_drop.register_forward_hook(lambda m, args, out: maps.append(out))
    model(clip_for("maps", (1, 3, 4, 64, 64)))
    assert maps[0].shape == (1, 3, 65, 65)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(1, 3, 65))
