"""Resizing of positional embeddings, as pure functions.

Shape letters: N = h·w patches of a frame, T frames, D embedding width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer.config.allowed import CHOICES

POS_EMBED_MODES = (*CHOICES["TIMESFORMER.POS_EMBED_RESIZE"], "nearest")  # the last in forward
TIME_EMBED_MODES = CHOICES["TIMESFORMER.TIME_EMBED_RESIZE"]


def resize_pos_embed(
    pos_embed: Tensor,
    grid: tuple[int, int],
    mode: str = "bicubic",
    source_grid: tuple[int, int] | None = None,
    prefix_tokens: int = 1,
) -> Tensor:
    """Resize the spatial embedding to another patch grid; the CLS row stays as it is.

    Args:
        pos_embed: (1, 1 + N, D), row 0 belongs to CLS, patches row-major.
        grid: wanted (h, w) in patches.
        mode: "nearest" (what the model does in forward), "bicubic" (what loading does), "bilinear"
            (what timm's reader of Google's files does), or "legacy": 1-D nearest over the
            flattened patches, which is how the published loader stretched image weights. It
            scrambles rows and exists to score old runs the same.
        source_grid: (h, w) of `pos_embed`; a square when None.
        prefix_tokens: rows before the patches: 1 for CLS, 0 for a scheme without it.

    Returns:
        (1, 1 + h·w, D).

    Raises:
        ValueError: for an unknown mode, or if N doesn't fit the source grid.
    """
    cls, patches = pos_embed[:, :prefix_tokens], pos_embed[:, prefix_tokens:]
    h, w = source_grid or (math.isqrt(patches.shape[1]),) * 2
    if h * w != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} patch positions don't form a {h}×{w} grid")
    if mode not in POS_EMBED_MODES:
        raise ValueError(f"unknown resize mode {mode!r}: {', '.join(POS_EMBED_MODES)}")
    if mode == "legacy":
        patches = F.interpolate(patches.transpose(1, 2), size=grid[0] * grid[1], mode="nearest")
    else:
        frame = patches.transpose(1, 2).unflatten(2, (h, w))
        frame = F.interpolate(frame, size=grid, mode=mode)
        patches = frame.flatten(2)
    return torch.cat([cls, patches.transpose(1, 2)], dim=1)


def resize_time_embed(time_embed: Tensor, frames: int, mode: str = "nearest") -> Tensor:
    """Resize the temporal embedding (1, T, D) to (1, frames, D): nearest, as published, or linear.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in TIME_EMBED_MODES:
        raise ValueError(f"unknown resize mode {mode!r}: {', '.join(TIME_EMBED_MODES)}")
    if time_embed.shape[1] == frames:
        return time_embed
    return F.interpolate(time_embed.transpose(1, 2), size=frames, mode=mode).transpose(1, 2)


def sinusoidal_embed(positions: int, dim: int) -> Tensor:
    """Return sines and cosines of unit amplitude (1, T, D) (Vaswani et al. 2017, §3.5)."""
    rates = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * rates
    # An odd width has one more sine than cosine.
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None, :, :dim]


def sinusoidal_embed_2d(grid: tuple[int, int], dim: int) -> Tensor:
    """Return sines and cosines of column and row (1, h·w, D), as MoCo v3 (arXiv 2104.02057) has.

    The formula is that of big_vision's posemb_sincos_2d; D is a multiple of 4, from 8.
    """
    rates = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4 - 1))
    places = [torch.arange(side, dtype=torch.float64) for side in grid]
    y, x = (place.flatten()[:, None] * rates for place in torch.meshgrid(*places, indexing="ij"))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).float()[None]
