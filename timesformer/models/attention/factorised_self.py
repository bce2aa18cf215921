"""Factorised self-attention (ViViT, arXiv 2103.15691, §3.3, Model 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from timesformer.models.attention import SPACE, TIME, SpaceTimeBlock, TokenGrid, register_scheme


@register_scheme("factorised_self_attention")
class FactorisedSelfAttentionBlock(SpaceTimeBlock):
    """Each patch attends to all patches of its frame, then to its own position in all frames.

    CLS: there is none, as in ViViT, which averages patches at the end.

    ViViT has no Linear after time attention; `temporal_fc` is that attention's output projection.
    ViViT starts all weights of time attention at zero, where most get no gradient. Zero in
    `temporal_fc` alone is the same start, and the rest is copied.
    """

    cls_token = False
    any_positions = True
    extra_steps = ("temporal",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_submodule("temporal_attn.proj", nn.Identity())

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """(B, N·T, D) -> the same: space step, then time step, each with its residual."""
        for name, pattern in ((None, SPACE), ("temporal", TIME)):
            x = x + self.step(name, x, pattern, grid.axes)[0]
        return x
