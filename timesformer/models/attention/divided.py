"""Divided space-time attention: time first, then space (paper, §3, Eq. 11-14)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from timesformer.models.attention import SPACE, TIME, SpaceTimeBlock, TokenGrid, register_scheme


@register_scheme("divided_space_time")
class DividedSpaceTimeBlock(SpaceTimeBlock):
    """Each patch attends to its own position in all frames, then to all patches of its frame.

    CLS: takes no part in time, as in the published model; with `cls_in_time` it is one key and
    value more for every patch, as in Eq. 13 of the paper, and isn't updated by that step. In space
    it joins every frame as a copy, and what the copies gather is averaged over frames.

    Every time step ends in `temporal_fc`, zero at the start: with copied image weights the network
    then begins as the image model.

    Args:
        *args: of `SpaceTimeBlock`.
        cls_in_time: whether patches see CLS in the time step.
        **kwargs: of `SpaceTimeBlock`.
    """

    any_positions = True
    extra_steps = ("temporal",)
    options = frozenset({"cls_in_time"})

    def __init__(self, *args: Any, cls_in_time: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cls_in_time = cls_in_time

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same: time step, then space step, each with its residual."""
        cls, patches = x[:, :1], x[:, 1:]
        key = cls if self.cls_in_time else None
        step, _ = self.step("temporal", patches, TIME, grid.axes, key)
        patches = patches + step
        step, cls_step = self.step(None, patches, SPACE, grid.axes, cls)
        return torch.cat([cls + cls_step, patches + step], dim=1)
