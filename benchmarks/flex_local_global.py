"""Sparse local and global attention by FlexAttention, to compare the regrouped path with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from timesformer.models.attention import TokenGrid
from timesformer.models.attention.layers import Attention


class FlexLocalGlobal:
    """`sparse_local_global` of a block, by FlexAttention over the whole clip with a block mask.

    FlexAttention skips blocks of 128 × 128 pairs that the mask leaves empty. In the clip's own
    order the parities leave none, so tokens can also be sorted by group first.

    Args:
        block: whose weights are used.
        grid: of at least two patches and frames in every direction.
        device: where the masks are.
        ordered: whether tokens are sorted by group.
        kernel: `flex_attention`, compiled or not.
    """

    def __init__(
        self,
        block: Any,
        grid: TokenGrid,
        device: torch.device,
        ordered: bool,
        kernel: Callable[..., Any],
    ) -> None:
        self.block, self.kernel = block, kernel
        _, T, h, w = grid
        token = torch.arange(T * h * w)
        t, x, y = token % T, token // T % w, token // T // w
        quadrant = 2 * (y >= (h + 1) // 2) + (x >= (w + 1) // 2)
        parity = torch.cat([torch.arange(8), 4 * (y % 2) + 2 * (x % 2) + t % 2])
        self.steps = [self._mask(groups.to(device), ordered) for groups in (quadrant, parity)]

    def _mask(self, groups: Tensor, ordered: bool) -> tuple[Any, Tensor, Tensor]:
        order = groups.argsort(stable=True) if ordered else torch.arange(len(groups)).to(groups)
        own = groups[order]

        def same_group(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return own[q] == own[k]

        L, device = len(groups), str(groups.device)
        return create_block_mask(same_group, None, None, L, L, device), order, order.argsort()

    def _attend(self, attn: Attention, x: Tensor, step: int) -> Tensor:
        mask, order, back = self.steps[step]
        q, k, v = attn.split_heads(x[:, order])
        return attn.join_heads(self.kernel(q, k, v, block_mask=mask, scale=attn.scale))[:, back]

    def __call__(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same."""
        block = self.block
        cls, patches = x[:, :1], x[:, 1:]
        step = self._attend(block.local_attn, block.local_norm1(patches), 0)
        patches = patches + block.local_fc(step)
        tokens = block.norm1(torch.cat([cls.expand(-1, 8, -1), patches], dim=1))
        step = self._attend(block.attn, tokens, 1)
        cls = cls + step[:, :8].mean(dim=1, keepdim=True)
        x = torch.cat([cls, patches + step[:, 8:]], dim=1)
        return x + block.mlp(block.norm2(x))
