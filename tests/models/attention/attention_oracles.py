"""Attention schemes written a second time: dense attention under an explicit boolean mask.

Nothing here folds tokens: every patch gets numbers of the groups that it is in, from its place
(t, h, w), and a token sees those of its own group. CLS in several groups is several tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from timesformer.models.attention import TokenGrid

Groups = Callable[["Place"], Tensor]
Oracle = Callable[[nn.Module, Tensor, TokenGrid], Tensor]


class Place(NamedTuple):
    """Where every patch token lies, each (N·T,); and the grid."""

    t: Tensor
    h: Tensor
    w: Tensor
    grid: TokenGrid


def places(grid: TokenGrid) -> Place:
    """Time fastest, then columns, then rows."""
    token = torch.arange(grid.frames * grid.height * grid.width)
    patch = token // grid.frames
    return Place(token % grid.frames, patch // grid.width, patch % grid.width, grid)


def number(*features: Tensor) -> Tensor:
    """0, 1, … for every combination of features that occurs."""
    return torch.stack(features, dim=1).unique(dim=0, return_inverse=True)[1]


def position(at: Place) -> Tensor:
    return number(at.h, at.w)


def frame(at: Place) -> Tensor:
    return number(at.t)


def row(at: Place) -> Tensor:
    return number(at.t, at.h)


def column(at: Place) -> Tensor:
    return number(at.t, at.w)


def quadrant(at: Place) -> Tensor:
    """The first half of an odd side is the larger."""
    return number(at.h >= (at.grid.height + 1) // 2, at.w >= (at.grid.width + 1) // 2)


def around(at: Place) -> Tensor:
    """Mask: windows of 2⌊h/4⌋ + 1 rows and 2⌊w/4⌋ + 1 columns, in all frames."""
    rows, columns = ((x[:, None] - x).abs() for x in (at.h, at.w))
    return (rows <= at.grid.height // 4) & (columns <= at.grid.width // 4)


def parity(at: Place) -> Tensor:
    return number(at.t % 2, at.h % 2, at.w % 2)


def masked_attention(attention: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Dense attention where query i sees key j only if mask[..., i, j]; a mask may have heads."""
    B, L, D = x.shape
    q, k, v = attention.qkv(x).reshape(B, L, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)) * (D // attention.num_heads) ** -0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return attention.proj((weights @ v).transpose(1, 2).reshape(B, L, D))


def same(groups: Tensor) -> Tensor:
    """Mask (L, L): who is in whose group."""
    return groups[:, None] == groups


def extra(name: str, groups: Groups, cls_is_key: bool = False) -> Oracle:
    """An extra step's residual of the patches, zero for CLS; x is [CLS, patches].

    `groups` may be a mask, too.
    """

    def step(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
        sees = groups(places(grid))
        sees = same(sees) if sees.ndim == 1 else sees
        mask = nn.functional.pad(sees, (1, 0, 1, 0))
        mask[0, 0] = True
        mask[:, 0] |= cls_is_key
        norm1, attn, fc = (getattr(block, f"{name}_{part}") for part in ("norm1", "attn", "fc"))
        out = fc(masked_attention(attn, norm1(x), mask))
        return torch.cat([torch.zeros_like(out[:, :1]), out[:, 1:]], dim=1)

    return step


def with_cls(groups: Groups, norm1: str, attn: str, fc: str | None = None) -> Oracle:
    """A step's residual: a copy of CLS in every group, what they gather averaged."""

    def step(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
        own = groups(places(grid))
        G = int(own.max()) + 1
        tokens = torch.cat([x[:, :1].expand(-1, G, -1), x[:, 1:]], dim=1)
        mask = same(torch.cat([torch.arange(G), own]))
        out = masked_attention(getattr(block, attn), getattr(block, norm1)(tokens), mask)
        out = getattr(block, fc)(out) if fc else out
        return torch.cat([out[:, :G].mean(dim=1, keepdim=True), out[:, G:]], dim=1)

    return step


def image(groups: Groups) -> Oracle:
    """The image ViT's step."""
    return with_cls(groups, "norm1", "attn")


def in_turn(*steps: Oracle) -> Oracle:
    """Every step sees what the ones before it made."""

    def attend(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
        for step in steps:
            x = x + step(block, x, grid)
        return x

    return attend


def at_once(*steps: Oracle) -> Oracle:
    """All steps see the same input."""
    return lambda block, x, grid: x + sum(step(block, x, grid) for step in steps)


def joint(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
    full = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
    return x + masked_attention(block.attn, block.norm1(x), full)


def space_only(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
    """All frames as one long sequence, where tokens see only their own frame."""
    L = x.shape[1]
    clip = x.reshape(grid.batch, grid.frames * L, -1)
    own = torch.arange(grid.frames).repeat_interleave(L)
    return (clip + masked_attention(block.attn, block.norm1(clip), same(own))).reshape(x.shape)


def frames_without_cls(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
    return x + masked_attention(block.attn, block.norm1(x), same(frame(places(grid))))


def factorised_self(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
    x = frames_without_cls(block, x, grid)
    in_time = same(position(places(grid)))
    step = masked_attention(block.temporal_attn, block.temporal_norm1(x), in_time)
    return x + block.temporal_fc(step)


def factorised_dot_product(block: nn.Module, x: Tensor, grid: TokenGrid) -> Tensor:
    """A mask for every head."""
    at, A = places(grid), block.attn.num_heads
    in_space = (torch.arange(A) < (A + 1) // 2)[:, None, None]
    mask = torch.where(in_space, same(frame(at)), same(position(at)))
    return x + masked_attention(block.attn, block.norm1(x), mask)


TIME_STEP = extra("temporal", position)
TIME_STEP_WITH_CLS = with_cls(position, "temporal_norm1", "temporal_attn", "temporal_fc")
ORACLES: dict[str, Oracle] = {
    "space_only": space_only,
    "joint_space_time": joint,
    "divided_space_time": in_turn(TIME_STEP, image(frame)),
    "divided_space_time+cls_in_time": in_turn(
        extra("temporal", position, cls_is_key=True), image(frame)
    ),
    "space_then_time": in_turn(image(frame), TIME_STEP_WITH_CLS),
    "parallel_space_time": at_once(image(frame), TIME_STEP_WITH_CLS),
    "sparse_local_global": in_turn(extra("local", quadrant), image(parity)),
    "sparse_local_global+local_window": in_turn(extra("local", around), image(parity)),
    "axial": in_turn(TIME_STEP, extra("width", row), image(column)),
    "factorised_self_attention": factorised_self,
    "factorised_dot_product": factorised_dot_product,
}

# What a block does when it starts from image weights: the image's own attention, in these groups.
STARTS: dict[str, Oracle] = ORACLES | {
    "divided_space_time": in_turn(image(frame)),
    "divided_space_time+cls_in_time": in_turn(image(frame)),
    "space_then_time": in_turn(image(frame)),
    "parallel_space_time": in_turn(image(frame)),
    "sparse_local_global": in_turn(image(parity)),
    "sparse_local_global+local_window": in_turn(image(parity)),
    "axial": in_turn(image(column)),
    "factorised_self_attention": frames_without_cls,
}
