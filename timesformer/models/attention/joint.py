"""Joint space-time attention: all tokens of the clip at once (paper, Eq. 5-6)."""

from __future__ import annotations

from torch import Tensor

from timesformer.models.attention import SpaceTimeBlock, TokenGrid, register_scheme


@register_scheme("joint_space_time")
class JointSpaceTimeBlock(SpaceTimeBlock):
    """Every patch of every frame attends to every other; cost grows with (N·T)².

    CLS: one per clip, part of the one sequence.
    """

    any_positions = True

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, 1 + N·T, D) -> the same."""
        return x + self.drop_path(self.attn(self.norm1(x)))
