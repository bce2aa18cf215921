"""MViT as torchvision has it, for clips of any size. Names and shapes of weights are torchvision's.

Shape letters: B batch, T frames, H×W pixels, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.mvit import MSBlockConfig, PositionalEncoding

from timesformer.models.network.input import check_clips
from timesformer.models.others.classifier import Classifier


class MViT(Classifier, video.MViT):
    """Multiscale Vision Transformer (arXiv 2104.11227; v2: arXiv 2112.01526).

    Clips of another size than built for work too, which torchvision's don't: positions are resized.

    Args:
        version: 1 (absolute positions) or 2 (relative ones, residual pooling).
        num_frames: frames T of a clip.
        img_size: frame side in pixels, at least 32.
        num_classes: classes K.
    """

    classifier_name = "head.1"
    num_features = 768

    conv_proj: nn.Conv3d
    pos_encoding: PositionalEncoding
    blocks: nn.ModuleList
    norm: nn.LayerNorm
    head: nn.Sequential

    def __init__(
        self, version: int, num_frames: int = 16, img_size: int = 224, num_classes: int = 400
    ) -> None:
        second = version == 2
        # The patch convolution pads, so a remainder gets a position too: round up.
        side = -(-img_size // 4) * 4
        super().__init__(
            spatial_size=(side, side),
            temporal_size=-(-num_frames // 2) * 2,
            block_setting=_mvit_blocks(version),
            residual_pool=second,
            residual_with_cls_embed=False,
            rel_pos_embed=second,
            proj_after_attn=second,
            stochastic_depth_prob=0.2,
            num_classes=num_classes,
        )

    def positions(self, frames: int, height: int, width: int) -> Tensor | None:
        """Absolute positions (1 + T·h·w, C) of CLS and a token grid; None with relative ones."""
        stored = self.pos_encoding
        cls, spatial, temporal = stored.class_pos, stored.spatial_pos, stored.temporal_pos
        if cls is None or spatial is None or temporal is None:
            return None
        spatial = _resize_grid(spatial, stored.spatial_size, (height, width))
        grid = (_resize_line(temporal, frames)[:, None] + spatial).flatten(0, 1)
        return torch.cat([cls[None], grid])

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W), normalised as the weights expect -> logits (B, K)."""
        check_clips(x)
        x = self.conv_proj(x)
        thw = tuple(x.shape[2:])
        cls = self.pos_encoding.class_token.expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x.flatten(2).transpose(1, 2)], dim=1)
        if (positions := self.positions(*thw)) is not None:
            x = x + positions
        for block in self.blocks:
            x, thw = block(x, thw)
        return self.head(self.norm(x)[:, 0])

    def fit_positions(self, state: Mapping[str, Tensor], *how: str) -> dict[str, Tensor]:
        """Those positions of `state` that are for another clip size, resized to this model's.

        Grids bicubic, lines linear, however positions of a ViT are resized.
        """
        fitted = {}
        own = self.state_dict()
        for key, value in state.items():
            name = key.rpartition(".")[2]
            if key not in own or not (name.startswith("rel_pos_") or name.endswith("_pos")):
                continue
            if value.ndim != 2 or value.shape == own[key].shape:
                continue
            if name == "spatial_pos":
                side = int(value.shape[0] ** 0.5)
                grid = self.pos_encoding.spatial_size
                fitted[key] = _resize_grid(value.float(), (side, side), grid)
            else:
                fitted[key] = _resize_line(value.float(), own[key].shape[0])
        return fitted


def _mvit_blocks(version: int) -> list[MSBlockConfig]:
    """Table 3 of MViT (v1-B) or Table 1 of MViTv2 (v2-S): 16 blocks in 4 stages.

    Heads double where a stage begins (blocks 1, 3 and 14), and queries are pooled there. Version 1
    widens in the block before, version 2 in that block. Keys are pooled so that the stride to the
    patch grid stays 8.
    """
    heads = [1] + [2] * 2 + [4] * 11 + [8] * 2
    widths = [96 * count for count in heads]
    if version == 1:
        inputs, outputs = widths, [*widths[1:], widths[-1]]
    else:
        inputs, outputs = [widths[0], *widths[:-1]], widths
    blocks = []
    for i, count in enumerate(heads):
        starts_stage = i in (1, 3, 14)
        pools = starts_stage or version == 2
        blocks.append(
            MSBlockConfig(
                num_heads=count,
                input_channels=inputs[i],
                output_channels=outputs[i],
                kernel_q=[3, 3, 3] if pools else [],
                kernel_kv=[3, 3, 3],
                stride_q=([1, 2, 2] if starts_stage else [1, 1, 1]) if pools else [],
                stride_kv=[1, 8 // count, 8 // count],
            )
        )
    return blocks


def _resize_line(table: Tensor, length: int) -> Tensor:
    """(L, C) -> (length, C), linearly."""
    if table.shape[0] == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear")[0].T


def _resize_grid(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """(h·w, C) for grid `source` -> (h'·w', C) for grid `target`, bicubic."""
    if source == target:
        return table
    grid = table.T.unflatten(1, source)[None]
    return F.interpolate(grid, size=target, mode="bicubic")[0].flatten(1).T
