"""Axial attention: along time, then width, then height (paper, §3 and Fig. 2, "T+W+H")."""

from __future__ import annotations

import torch
from torch import Tensor

from timesformer.models.attention import TIME, SpaceTimeBlock, TokenGrid, register_scheme

ROWS = "b (h w t) d -> (b h t) w d"
COLUMNS = "b (h w t) d -> (b w t) h d"


@register_scheme("axial")
class AxialBlock(SpaceTimeBlock):
    """Each patch attends to its position in all frames, then to its row, then to its column.

    No sequence is longer than T, w or 1 + h tokens: cost grows as N·T·(T + w + h).

    CLS: takes no part in time and width. In height it joins every column of every frame as a copy,
    and what the copies gather is averaged over columns and frames.

    The height step is the image ViT's attention; `temporal_fc` and `width_fc` are zero at the
    start, so with copied image weights a network begins as the image model seen through columns.
    """

    extra_steps = ("temporal", "width")

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same: time, width, height, each with its residual."""
        cls, patches = x[:, :1], x[:, 1:]
        for name, pattern in (("temporal", TIME), ("width", ROWS)):
            patches = patches + self.step(name, patches, pattern, grid.axes)[0]
        step, cls_step = self.step(None, patches, COLUMNS, grid.axes, cls)
        return torch.cat([cls + cls_step, patches + step], dim=1)
