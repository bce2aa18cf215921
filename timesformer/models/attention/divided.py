"""Divided space-time attention: time first, then space (paper, §3, Eq. 11-14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.models.attention.base import SpaceTimeBlock, TokenGrid, register_scheme
from timesformer.models.layers import Attention


@register_scheme("divided_space_time")
class DividedSpaceTimeBlock(SpaceTimeBlock):
    """Each patch attends to its own position in all frames, then to all patches of its frame.

    CLS: takes no part in time (Eq. 13 of the paper has it as a key; the published model doesn't).
    In space it joins every frame as a copy, and what the copies gather is averaged over frames.

    Every time step ends in `temporal_fc`, zero at the start: with copied image weights the network
    then begins as the image model.
    """

    image_init: ClassVar[Mapping[str, str]] = {"temporal_attn": "attn", "temporal_norm1": "norm1"}
    zero_init = ("temporal_fc",)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__(
            dim, num_heads, mlp_ratio, qkv_bias, qk_scale, drop, attn_drop, drop_path,
            act_layer, norm_layer,
        )  # fmt: skip
        self.temporal_norm1 = norm_layer(dim)
        self.temporal_attn = Attention(dim, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.temporal_fc = nn.Linear(dim, dim)

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same: time step, then space step, each with its residual."""
        B, T = grid.batch, grid.frames
        cls, patches = x[:, :1], x[:, 1:]

        along_time = rearrange(patches, "b (n t) d -> (b n) t d", t=T)
        step = self.drop_path(self.temporal_attn(self.temporal_norm1(along_time)))
        # temporal_fc comes after drop_path, so its bias acts on dropped rows too, as published.
        patches = patches + rearrange(self.temporal_fc(step), "(b n) t d -> b (n t) d", b=B)

        frames = rearrange(patches, "b (n t) d -> (b t) n d", t=T)
        frames = torch.cat([cls.repeat_interleave(T, dim=0), frames], dim=1)
        step = rearrange(self.drop_path(self.attn(self.norm1(frames))), "(b t) l d -> b l t d", b=B)
        cls = cls + step[:, :1].mean(dim=2)
        patches = patches + step[:, 1:].flatten(1, 2)
        return torch.cat([cls, patches], dim=1)
