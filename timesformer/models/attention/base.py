"""What every space-time attention scheme has in common.

A scheme regroups tokens into shorter sequences, attends, puts them back, and says what CLS does.
It is one class, registered under the name that TIMESFORMER.ATTENTION_TYPE gives; the network asks
it questions (`one_sequence_per_clip`, `image_init`, `zero_init`) and never compares names.

Shape letters: B batch, T frames, N = h·w patches of a frame, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

from fvcore.common.registry import Registry
from torch import Tensor, nn

from timesformer.models.layers import Attention, DropPath, Mlp

ATTENTION_REGISTRY = Registry("ATTENTION")
ATTENTION_REGISTRY.__doc__ = "Space-time attention schemes: name -> `SpaceTimeBlock` subclass."


def register_scheme(
    name: str,
) -> Callable[[type[SpaceTimeBlock]], type[SpaceTimeBlock]]:
    """Class decorator: registers a scheme as `name`; the registry alone would take the class's."""

    def register(block_class: type[SpaceTimeBlock]) -> type[SpaceTimeBlock]:
        ATTENTION_REGISTRY._do_register(name, block_class)
        return block_class

    return register


class TokenGrid(NamedTuple):
    """How the tokens of a batch lie in space and time; read off the input once, passed down."""

    batch: int
    frames: int
    height: int
    width: int


class SpaceTimeBlock(nn.Module):
    """A pre-norm transformer block: x = attend(x); x = x + drop_path(mlp(norm2(x))).

    A subclass adds its own submodules and says how tokens attend to each other in `attend`.

    Args:
        dim: embedding width D.
        num_heads: heads of every attention in the block.
        mlp_ratio: hidden width of the MLP over D.
        qkv_bias: see `Attention`.
        qk_scale: see `Attention`.
        drop: dropout in the MLP and after attention projections.
        attn_drop: dropout on attention weights.
        drop_path: probability of skipping a residual branch, per row of its (folded) batch.
        act_layer: activation of the MLP.
        norm_layer: makes a normalisation layer from D.
    """

    one_sequence_per_clip: ClassVar[bool] = True
    """True: x is (B, 1 + N·T, D), CLS first, then patches with time fastest (h w t).
    False: x is (B·T, 1 + N, D), every frame has a CLS of its own and there is no time_embed."""

    image_init: ClassVar[Mapping[str, str]] = {}
    """New submodule -> submodule of an image ViT's block that it is copied from."""

    zero_init: ClassVar[tuple[str, ...]] = ()
    """Linear submodules that start at zero, so that training starts at the image model."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Returns x after all attention steps, their residuals included, in the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Maps tokens to tokens of the same shape (see `one_sequence_per_clip`)."""
        x = self.attend(x, grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))
