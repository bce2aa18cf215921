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

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from fvcore.common.registry import Registry
from torch import Tensor, nn

from timesformer.models.attention.dropping import DropPath
from timesformer.models.attention.layers import Attention, Mlp, has_hooks, hidden_width
from timesformer.models.attention.linear import Linear

ATTENTION_REGISTRY = Registry("ATTENTION")
ATTENTION_REGISTRY.__doc__ = "Space-time attention schemes: name -> `SpaceTimeBlock` subclass."

TIME = "b (h w t) d -> (b h w) t d"
SPACE = "b (h w t) d -> (b t) (h w) d"


FEW = 32
"""Tokens of a sequence that an MLP is computed for where CLS alone is wanted. By products of fewer
rows than a clip has so, the bits of its scores would depend on how many clips are beside it."""


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

    any_positions: ClassVar[bool] = False
    """True: which patches lie beside each other in a frame plays no part, so the scheme takes any
    set of positions, as a grid of one row. False: `TokenGrid` has to be rows × columns, which is
    what every scheme can take."""

    extra_steps: ClassVar[tuple[str, ...]] = ()
    """Names of further attention steps. Each has `{name}_norm1` and `{name}_attn`, which start as
    copies of the image's `norm1` and `attn`, and `{name}_fc`, a Linear that starts at zero and
    takes what `{name}_attn` gives, as `step` does (exports make one layer of both)."""

    image_init: ClassVar[Mapping[str, str]] = {}
    """New submodule -> submodule of an image ViT's block that it is copied from."""

    zero_init: ClassVar[tuple[str, ...]] = ()
    """Linear submodules that start at zero, so that training starts at the image model."""

    options: ClassVar[frozenset[str]] = frozenset()
    """Keyword arguments that the scheme takes besides those of every scheme."""

    takes_cls_only: ClassVar[bool] = True
    """False: its `forward` is one of its own, (x, grid) alone, so that all tokens are computed."""

    recompute = False
    """Recompute this block's activations in the backward pass, as `act_checkpoint` does of all."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Derive the start of `extra_steps` and others, unless the class itself says another."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "extra_steps" in own and "image_init" not in own:
            cls.image_init = {
                f"{name}_{part}": part for name in cls.extra_steps for part in ("attn", "norm1")
            }
        if "extra_steps" in own and "zero_init" not in own:
            cls.zero_init = tuple(f"{name}_fc" for name in cls.extra_steps)
        if "forward" in own and "takes_cls_only" not in own:
            cls.takes_cls_only = "cls_only" in inspect.signature(own["forward"]).parameters

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
        self.mlp = Mlp(dim, hidden_width(dim, mlp_ratio), act_layer=act_layer, drop=drop)
        for name in self.extra_steps:
            attn = Attention(dim, num_heads, qkv_bias, qk_scale, attn_drop, drop)
            self.add_module(f"{name}_norm1", norm_layer(dim))
            self.add_module(f"{name}_attn", attn)
            self.add_module(f"{name}_fc", Linear(dim, dim))

    @classmethod
    def new_parts(cls) -> set[str]:
        """Name the submodules that an image ViT's block lacks."""
        return {name.partition(".")[0] for name in (*cls.image_init, *cls.zero_init)}

    def attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Return x after all attention steps, their residuals included, in the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, grid: TokenGrid, cls_only: bool = False) -> Tensor:
        """Map tokens to tokens of the same shape (see `one_sequence_per_clip`).

        With `cls_only` CLS (…, 1, D) alone is returned, and the MLP is computed for few others.
        """
        x = self.attend(x, grid)
        if cls_only:
            x = x[:, :FEW]
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x[:, :1] if cls_only else x

    @torch.no_grad()
    def join_projections(self) -> None:
        """Make one of two linear layers where one follows the other: for inference.

        The layers change, and their weights are left as they are: others may have them, too.
        `{name}_fc` takes what the projection of `{name}_attn` gives, and only training puts
        something between them. With divided attention 6 % of a block's products are saved. Layers
        that compute something else than their weights say (LoRA, parametrizations) stay two.
        """
        for name in self.extra_steps:
            first: Any = self.get_submodule(f"{name}_attn.proj")
            then: Any = self.get_submodule(f"{name}_fc")
            plain = {type(first), type(then)} <= {nn.Linear, Linear}
            if not plain or has_hooks(first, then) or first.bias is None or then.bias is None:
                continue
            outer = then.weight.double()
            bias = outer @ first.bias.double() + then.bias.double()
            first.bias = nn.Parameter(bias.type_as(first.bias))
            first.weight = nn.Parameter((outer @ first.weight.double()).type_as(first.weight))
            self.set_submodule(f"{name}_fc", nn.Identity())

    def step(
        self,
        name: str | None,
        patches: Tensor,
        pattern: str,
        axes: Mapping[str, int],
        cls: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend within the sequences that a pattern makes of the patches.

        Args:
            name: one of `extra_steps`, or None for the image ViT's own attention.
            patches: (B, N·T, D).
            pattern: einops pattern from patches to sequences (R, L, D); b comes first in the rows
                where CLS takes part.
            axes: lengths of the pattern's axes, as `TokenGrid.axes`.
            cls: (B, 1, D). It joins every sequence of its clip as a copy, and what the copies
                gather is averaged. None keeps it out.
            valid: (B, N·T) bool, False at padding; None if there is none.

        Returns:
            What the step adds to the patches (B, N·T, D), and to CLS (B, 1, D), or (B, 0, D)
            where it stays out.
        """
        prefix = f"{name}_" if name else ""
        norm1, attn = (self.get_submodule(f"{prefix}{part}") for part in ("norm1", "attn"))
        sequences = rearrange(patches, pattern, **axes)
        mask = None if valid is None else rearrange(valid[..., None], pattern, **axes)[..., 0]
        if cls is not None:
            copies = cls.repeat_interleave(sequences.shape[0] // cls.shape[0], dim=0)
            sequences = torch.cat([copies, sequences], dim=1)
            mask = None if mask is None else nn.functional.pad(mask, (1, 0), value=True)
        sequences = self.drop_path(attn(norm1(sequences), mask))
        if name:
            # After drop_path, so its bias acts on dropped rows too, as published.
            sequences = self.get_submodule(f"{prefix}fc")(sequences)
        if cls is None:
            return _unfold(sequences, pattern, axes), patches[:, :0]
        gathered = sequences[:, :1].unflatten(0, (axes["b"], -1)).mean(dim=1)
        return _unfold(sequences[:, 1:], pattern, axes), gathered


def _unfold(sequences: Tensor, pattern: str, axes: Mapping[str, int]) -> Tensor:
    """Back from the sequences (R, L, D) that a pattern made to patches (B, N·T, D)."""
    patches, folded = pattern.split(" -> ")
    return rearrange(sequences, f"{folded} -> {patches}", **axes)
