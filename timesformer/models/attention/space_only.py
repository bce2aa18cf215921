"""Space-only attention: every frame by itself (paper, §3 "Space Attention")."""

from __future__ import annotations

from torch import Tensor

from timesformer.models.attention import SpaceTimeBlock, TokenGrid, register_scheme


@register_scheme("space_only")
class SpaceOnlyBlock(SpaceTimeBlock):
    """An image ViT's block; frames meet only when the network averages them at the end.

    CLS: one per frame, part of its frame's sequence.
    """

    one_sequence_per_clip = False
    any_positions = True

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B·T, 1 + N, D) -> the same; patches and CLS of a frame attend to each other."""
        return x + self.drop_path(self.attn(self.norm1(x)))
