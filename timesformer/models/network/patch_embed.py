"""From pixels to tokens.

Shape letters: B batch, C channels, T frames, H×W pixels, P patch side, t frames of a tubelet,
h = H/P, w = W/P, M positions that are kept of h·w, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from timesformer.models.network.input import check_clips


class PatchEmbed(nn.Module):
    """Cuts frames into P×P patches, or clips into t×P×P tubelets, and projects each to D numbers.

    Args:
        img_size: frame side in pixels, or (H, W); sets the size of the stored pos_embed only.
        patch_size: patch side P in pixels.
        in_chans: channels C.
        embed_dim: embedding width D.
        tubelet_size: frames t that a token covers (ViViT, arXiv 2103.15691, §3.2).
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        tubelet_size: int = 1,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans = in_chans
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj: nn.Conv2d | nn.Conv3d
        if tubelet_size == 1:
            self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)
        else:
            tubelet = (tubelet_size, patch_size, patch_size)
            self.proj = nn.Conv3d(in_chans, embed_dim, tubelet, stride=tubelet)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Clip (B, C, T, H, W) -> tokens (B·T/t, h·w, D) with patches row-major, h, w.

        Raises:
            ValueError: see `check`.
        """
        self.check(x)
        if self.tubelet_size > 1:
            x = rearrange(self.proj(x), "b d t h w -> (b t) d h w")
        else:
            x = self.proj(rearrange(x, "b c t h w -> (b t) c h w"))
        return x.flatten(2).transpose(1, 2), x.shape[2], x.shape[3]

    def of_positions(self, x: Tensor, positions: Tensor) -> tuple[Tensor, int, int]:
        """Clip (B, C, T, H, W), positions (B, M) of h·w -> tokens (B·T/t, M, D) of these; h, w.

        They are those of `forward`, to rounding; patches elsewhere cost nothing.

        Raises:
            ValueError: see `check`.
        """
        self.check(x)
        (B, _, T, H, W), P = x.shape, self.patch_size
        times = T // self.tubelet_size
        patches = rearrange(
            x, "b c (n t) (h p) (w q) -> b n h w c t p q", n=times, p=P, q=P
        )  # a view: what is copied is what the next line takes
        clip, time = (torch.arange(n, device=x.device) for n in (B, times))
        y, x_ = positions // (W // P), positions % (W // P)
        kept = patches[clip[:, None, None], time[:, None], y[:, None], x_[:, None]]
        weight, bias = self.proj.weight, self.proj.bias
        tokens = F.linear(kept.flatten(3), weight.flatten(1), bias)  # (B, T/t, M, D)
        return tokens.flatten(0, 1), H // P, W // P

    def check(self, x: Tensor) -> None:
        """Make sure that clips divide into patches.

        Raises:
            ValueError: if the input isn't (B, C, T, H, W) (see `check_clips`), H or W isn't a
                multiple of P, or T of t.
        """
        check_clips(x, self.in_chans)
        if x.shape[3] % self.patch_size or x.shape[4] % self.patch_size:
            raise ValueError(
                f"frames of {x.shape[3]}×{x.shape[4]} pixels don't divide into patches of "
                f"{self.patch_size}×{self.patch_size}"
            )
        if x.shape[2] % self.tubelet_size:
            raise ValueError(
                f"{x.shape[2]} frames don't divide into tubelets of {self.tubelet_size}"
            )
