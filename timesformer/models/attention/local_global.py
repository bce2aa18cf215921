"""Sparse local and global attention (paper, §3 and Fig. 2, "L+G")."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from timesformer.config.allowed import CHOICES
from timesformer.models.attention import SpaceTimeBlock, TokenGrid, register_scheme

# i, j, k number the halves or parities of height, width and time.
QUADRANTS = "b (i h j w t k) d -> (b i j) (h w t k) d"
PARITIES = "b (h i w j t k) d -> (b i j k) (h w t) d"


@register_scheme("sparse_local_global")
class SparseLocalGlobalBlock(SpaceTimeBlock):
    """Each patch attends to F × H/2 × W/2 neighbours, then with a stride of 2 to the whole clip.

    Local, `local_window="quadrant"`: the patches of one quadrant of the frame, over all frames, in
    sequences of N·T/4 tokens. A patch beside the border of two quadrants doesn't see its neighbour
    across it. "centred": the window of (2⌊h/4⌋ + 1) × (2⌊w/4⌋ + 1) patches around the patch, 7 × 7
    of 14 × 14, over all frames; what lies outside the frame is left out. It is computed a row of
    patches at a time, which see half of the rows, in N·T·N·T/2 products under a mask: twice as many
    as with quadrants, half as many as in joint attention.

    Global: the whole clip with a stride of 2 along time, height and width, that is the patches of
    the same parity of (t, h, w), in sequences of 1 + N·T/8 tokens.

    CLS: takes no part in the local step. In the global one it joins each of the eight parities as
    a copy, and what the copies gather is averaged over parities.

    Odd sizes are padded to even ones and the padding is masked, so the first half of an axis is
    the larger; an axis of length 1 isn't split, so no quadrant and no parity is empty.

    The global step is the image ViT's attention; `local_fc` is zero at the start, so with copied
    image weights a network begins as the image model seen with a stride.

    Args:
        *args: of `SpaceTimeBlock`.
        local_window: "quadrant" or "centred".
        **kwargs: of `SpaceTimeBlock`.

    Raises:
        ValueError: for another `local_window`.
    """

    extra_steps = ("local",)
    options = frozenset({"local_window"})

    def __init__(self, *args: Any, local_window: str = "quadrant", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if local_window not in (known := CHOICES["TIMESFORMER.LOCAL_WINDOW"]):
            raise ValueError(f"unknown local_window {local_window!r}: {' or '.join(known)}")
        self.local_window = local_window

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same: local step, then global step, each with its residual."""
        cls, patches = x[:, :1], x[:, 1:]
        if self.local_window == "centred":
            patches = patches + self._centred(patches, grid)
        sizes = [grid.height, grid.width, grid.frames]
        parts = [min(2, size) for size in sizes]
        halves = [math.ceil(size / part) for size, part in zip(sizes, parts, strict=True)]
        even = [half * part for half, part in zip(halves, parts, strict=True)]
        axes = dict(zip("bhwtijk", (grid.batch, *halves, *parts), strict=True))
        valid = None
        if even != sizes:
            tokens = torch.ones_like(patches[..., :1], dtype=torch.bool)
            valid = _resize(tokens, sizes, even).squeeze(-1)
            patches = _resize(patches, sizes, even)
        if self.local_window == "quadrant":
            patches = patches + self.step("local", patches, QUADRANTS, axes, None, valid)[0]
        step, cls_step = self.step(None, patches, PARITIES, axes, cls, valid)
        patches = patches + step
        if even != sizes:
            patches = _resize(patches, even, sizes)
        return torch.cat([cls + cls_step, patches], dim=1)

    def _centred(self, patches: Tensor, grid: TokenGrid) -> Tensor:
        """Return what the local step adds to patches (B, N·T, D), each with its own window.

        A sequence is a row of patches in all frames; its keys are the rows around it.
        """
        attn: Any = self.get_submodule("local_attn")
        B, T, h, w = grid
        q, k, v = attn.split_heads(self.get_submodule("local_norm1")(patches))
        rows, mask = windows(h, w, patches.device)
        q = rearrange(q, "b a (h w t) d -> (b h) a (w t) d", h=h, t=T)
        k, v = (rearrange(x, "b a (h l) d -> b a h l d", h=h)[:, :, rows] for x in (k, v))
        k, v = (rearrange(x, "b a h k l d -> (b h) a (k l) d") for x in (k, v))
        mask = mask[None, :, :, None, :, :, None].expand(B, h, w, T, rows.shape[1], w, T)
        mask = mask.flatten(0, 1).flatten(1, 2).flatten(2)
        out = attn.join_heads(attn.mix(q, k, v, mask))
        out = rearrange(out, "(b h) l d -> b (h l) d", h=h)
        return self.get_submodule("local_fc")(self.drop_path(out))


def windows(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Say which patches of a frame the centred window of each has.

    Returns:
        For each row the rows (h, k) around it, some of which may stand in for rows outside of the
        frame; and (h, w, k, w) bool, True where a patch (row, column) may look at (row, column).
    """
    reach = height // 4
    wanted = torch.arange(height, device=device)[:, None] + torch.arange(
        -reach, reach + 1, device=device
    )
    rows = wanted.clamp(0, height - 1)
    column = torch.arange(width, device=device)
    near = (column[:, None] - column).abs() <= width // 4
    return rows, (rows == wanted)[:, None, :, None] & near[None, :, None, :]


def _resize(patches: Tensor, sizes: list[int], new_sizes: list[int]) -> Tensor:
    """Pad height, width and time with zeros at their end, or cut them there."""
    ends = [n for new, old in zip(new_sizes, sizes, strict=True) for n in (new - old, 0)]
    # F.pad wants (before, after) of the last axis first; D stays as it is.
    return F.pad(patches.unflatten(1, sizes), (0, 0, *reversed(ends))).flatten(1, 3)
