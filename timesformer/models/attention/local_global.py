"""Sparse local and global attention (paper, §3 and Fig. 2, "L+G")."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer.models.attention import SpaceTimeBlock, TokenGrid, register_scheme

# i, j, k number the halves or parities of height, width and time.
QUADRANTS = "b (i h j w t k) d -> (b i j) (h w t k) d"
PARITIES = "b (h i w j t k) d -> (b i j k) (h w t) d"


@register_scheme("sparse_local_global")
class SparseLocalGlobalBlock(SpaceTimeBlock):
    """Each patch attends to its quadrant of all frames, then with a stride of 2 to the whole clip.

    Local: the F × H/2 × W/2 patches of one quadrant of the frame, over all frames. Global: the
    whole clip with a stride of 2 along time, height and width, that is the patches of the same
    parity of (t, h, w). Sequences have N·T/4 and 1 + N·T/8 tokens.

    CLS: takes no part in the local step. In the global one it joins each of the eight parities as
    a copy, and what the copies gather is averaged over parities.

    Odd sizes are padded to even ones and the padding is masked, so the first half of an axis is
    the larger; an axis of length 1 isn't split, so no quadrant and no parity is empty.

    The global step is the image ViT's attention; `local_fc` is zero at the start, so with copied
    image weights a network begins as the image model seen with a stride.
    """

    extra_steps = ("local",)

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same: local step, then global step, each with its residual."""
        cls, patches = x[:, :1], x[:, 1:]
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
        patches = patches + self.step("local", patches, QUADRANTS, axes, None, valid)[0]
        step, cls_step = self.step(None, patches, PARITIES, axes, cls, valid)
        patches = patches + step
        if even != sizes:
            patches = _resize(patches, even, sizes)
        return torch.cat([cls + cls_step, patches], dim=1)


def _resize(patches: Tensor, sizes: list[int], new_sizes: list[int]) -> Tensor:
    """Pad height, width and time with zeros at their end, or cut them there."""
    ends = [n for new, old in zip(new_sizes, sizes, strict=True) for n in (new - old, 0)]
    # F.pad wants (before, after) of the last axis first; D stays as it is.
    return F.pad(patches.unflatten(1, sizes), (0, 0, *reversed(ends))).flatten(1, 3)
