"""Factorised dot-product attention (ViViT, arXiv 2103.15691, §3.3, Model 4)."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from timesformer.models.attention import SpaceTimeBlock, TokenGrid, register_scheme

HEADS_IN_SPACE = "b a (n t) d -> (b t) a n d"
HEADS_IN_TIME = "b a (n t) d -> (b n) a t d"


@register_scheme("factorised_dot_product")
class FactorisedDotProductBlock(SpaceTimeBlock):
    """The first half of the heads attends within frames, the second half along time.

    With an odd number of heads the half in space is the larger. Weights are those of joint
    attention, and there are no new ones to start at zero: from image weights, on a still video,
    the heads in time average equal values.

    CLS: there is none, as in ViViT, which averages patches at the end.

    Raises:
        ValueError: if there is one head only.
    """

    cls_token = False
    any_positions = True

    def __init__(self, dim: int, num_heads: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, num_heads, *args, **kwargs)
        if num_heads < 2:
            raise ValueError("factorised_dot_product needs a head for space and one for time")
        self.heads_in_space = num_heads - num_heads // 2

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, N·T, D) -> the same, both halves in one step."""
        B, T = grid.batch, grid.frames
        qkv = self.attn.split_heads(self.norm1(x))
        space = [rearrange(y[:, : self.heads_in_space], HEADS_IN_SPACE, t=T) for y in qkv]
        time = [rearrange(y[:, self.heads_in_space :], HEADS_IN_TIME, t=T) for y in qkv]
        heads = [
            rearrange(self.attn.mix(*space), "(b t) a n d -> b a (n t) d", b=B),
            rearrange(self.attn.mix(*time), "(b n) a t d -> b a (n t) d", b=B),
        ]
        return x + self.drop_path(self.attn.join_heads(torch.cat(heads, dim=1)))
