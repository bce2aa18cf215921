"""What every space-time attention scheme has in common.

A scheme regroups tokens into shorter sequences, attends, puts them back, and says what CLS does.
It is one class, registered under the name that TIMESFORMER.ATTENTION_TYPE gives; the network asks
it questions (`one_sequence_per_clip`, `image_init`, …) and never compares names. Which tokens see
each other is an einops pattern from a clip's patches to sequences:

    TIME = "b (h w t) d -> (b h w) t d"

Shape letters: B batch, T frames, h×w patches of a frame, N = h·w, D embedding width; R rows and
L tokens of the sequences that a pattern makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from fvcore.common.registry import Registry
from torch import Tensor, nn

from timesformer.models.attention.layers import Attention, DropPath, Mlp

ATTENTION_REGISTRY = Registry("ATTENTION")
ATTENTION_REGISTRY.__doc__ = "Space-time attention schemes: name -> `SpaceTimeBlock` subclass."

TIME = "b (h w t) d -> (b h w) t d"
SPACE = "b (h w t) d -> (b t) (h w) d"


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

    @property
    def axes(self) -> dict[str, int]:
        """Lengths of the axes b, t, h, w of the patterns."""
        return {"b": self.batch, "t": self.frames, "h": self.height, "w": self.width}


class SpaceTimeBlock(nn.Module):
    """A pre-norm transformer block: x = attend(x); x = x + drop_path(mlp(norm2(x))).

    A subclass says how tokens attend to each other in `attend`. `norm1` and `attn` are the image
    ViT's attention; attention steps that an image ViT lacks are named in `extra_steps`.

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

    cls_token: ClassVar[bool] = True
    """False: x is (B, N·T, D), without CLS; the network averages patches instead."""

    extra_steps: ClassVar[tuple[str, ...]] = ()
    """Names of further attention steps. Each has `{name}_norm1` and `{name}_attn`, which start as
    copies of the image's `norm1` and `attn`, and `{name}_fc`, a Linear that starts at zero."""

    image_init: ClassVar[Mapping[str, str]] = {}
    """New submodule -> submodule of an image ViT's block that it is copied from."""

    zero_init: ClassVar[tuple[str, ...]] = ()
    """Linear submodules that start at zero, so that training starts at the image model."""

    options: ClassVar[frozenset[str]] = frozenset()
    """Keyword arguments that the scheme takes besides those of every scheme."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Derives the start of `extra_steps`, unless the class itself says another."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "extra_steps" in own and "image_init" not in own:
            cls.image_init = {
                f"{name}_{part}": part for name in cls.extra_steps for part in ("attn", "norm1")
            }
        if "extra_steps" in own and "zero_init" not in own:
            cls.zero_init = tuple(f"{name}_fc" for name in cls.extra_steps)

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
        for name in self.extra_steps:
            attn = Attention(dim, num_heads, qkv_bias, qk_scale, attn_drop, drop)
            self.add_module(f"{name}_norm1", norm_layer(dim))
            self.add_module(f"{name}_attn", attn)
            self.add_module(f"{name}_fc", nn.Linear(dim, dim))

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Returns x after all attention steps, their residuals included, in the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Maps tokens to tokens of the same shape (see `one_sequence_per_clip`)."""
        x = self.attend(x, grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def extra_step(
        self,
        name: str,
        patches: Tensor,
        pattern: str,
        axes: Mapping[str, int],
        valid: Tensor | None = None,
    ) -> Tensor:
        """What an extra step adds to the patches; CLS stays out of it.

        Args:
            name: one of `extra_steps`.
            patches: (B, N·T, D).
            pattern: einops pattern from patches to sequences (R, L, D).
            axes: lengths of the pattern's axes, as `TokenGrid.axes`.
            valid: (B, N·T) bool, False at padding; None if there is none.

        Returns:
            The residual (B, N·T, D).
        """
        norm1, attn, fc = self._parts(name)
        sequences, mask = _fold(patches, pattern, axes, None, valid)
        # The Linear comes after drop_path, so its bias acts on dropped rows too, as published.
        return unfold(fc(self.drop_path(attn(norm1(sequences), mask))), pattern, axes)

    def extra_step_with_cls(
        self, name: str, cls: Tensor, patches: Tensor, pattern: str, axes: Mapping[str, int]
    ) -> tuple[Tensor, Tensor]:
        """What an extra step adds to CLS and patches, CLS taking part as in `image_step`."""
        norm1, attn, fc = self._parts(name)
        sequences, _ = _fold(patches, pattern, axes, cls, None)
        return _split(fc(self.drop_path(attn(norm1(sequences)))), pattern, axes)

    def image_step(
        self,
        cls: Tensor,
        patches: Tensor,
        pattern: str,
        axes: Mapping[str, int],
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the image ViT's attention adds to CLS and patches.

        CLS joins every sequence of its clip as a copy; what the copies gather is averaged.

        Args:
            cls: (B, 1, D).
            patches: (B, N·T, D).
            pattern: as in `extra_step`; b comes first in the rows.
            axes: as in `extra_step`.
            valid: as in `extra_step`.

        Returns:
            The residuals of CLS (B, 1, D) and patches (B, N·T, D).
        """
        sequences, mask = _fold(patches, pattern, axes, cls, valid)
        return _split(self.drop_path(self.attn(self.norm1(sequences), mask)), pattern, axes)

    def _parts(self, name: str) -> tuple[nn.Module, nn.Module, nn.Module]:
        return (
            self.get_submodule(f"{name}_norm1"),
            self.get_submodule(f"{name}_attn"),
            self.get_submodule(f"{name}_fc"),
        )


def _fold(
    patches: Tensor,
    pattern: str,
    axes: Mapping[str, int],
    cls: Tensor | None,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Sequences (R, L or 1 + L, D) with a copy of CLS in front if it is given; and their mask."""
    sequences = rearrange(patches, pattern, **axes)
    mask = None if valid is None else rearrange(valid[..., None], pattern, **axes)[..., 0]
    if cls is not None:
        copies = cls.repeat_interleave(len(sequences) // len(cls), dim=0)
        sequences = torch.cat([copies, sequences], dim=1)
        mask = None if mask is None else nn.functional.pad(mask, (1, 0), value=True)
    return sequences, mask


def _split(sequences: Tensor, pattern: str, axes: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Sequences (R, 1 + L, D) -> CLS (B, 1, D), the mean of its copies, and patches (B, N·T, D)."""
    cls = sequences[:, :1].unflatten(0, (axes["b"], -1)).mean(dim=1)
    return cls, unfold(sequences[:, 1:], pattern, axes)


def unfold(sequences: Tensor, pattern: str, axes: Mapping[str, int]) -> Tensor:
    """Back from the sequences (R, L, D) that a pattern made to patches (B, N·T, D)."""
    patches, folded = pattern.split(" -> ")
    return rearrange(sequences, f"{folded} -> {patches}", **axes)
