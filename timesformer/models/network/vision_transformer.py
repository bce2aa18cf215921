"""The network: patches, positions, blocks, head (paper, §3).

Shape letters: B batch, C channels, T frames, H×W pixels, P patch side, h = H/P, w = W/P,
N = h·w patches of a frame, D embedding width, K classes. A clip batch is (B, C, T, H, W).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timesformer.clips.tubes import PatchGrid, Tubes
from timesformer.config.allowed import CHOICES
from timesformer.models.attention import ATTENTION_REGISTRY, SpaceTimeBlock, TokenGrid
from timesformer.models.attention.layers import Mlp, has_hooks
from timesformer.models.network.patch_embed import PatchEmbed
from timesformer.models.network.pos_embed import (
    resize_pos_embed,
    resize_time_embed,
    sinusoidal_embed,
)

# Measured on Synthetic: see `Architecture.init`.
SCRATCH_POS_EMBED_STD = 0.5


class VisionTransformer(nn.Module):
    """A ViT over the patches of a clip, with one of the registered space-time schemes.

    Arguments up to `attention_type` are the published ones, and so are all state-dict names.

    Args:
        in_chans: channels C.
        qkv_bias: whether query, key and value projections have a bias.
        qk_scale: factor on q·k; (D/heads)^-0.5 when None.
        drop_rate: dropout on embeddings, projections and MLPs.
        attn_drop_rate: dropout on attention weights.
        norm_layer: makes a normalisation layer from D.
        img_size: like all that aren't named here, see `Architecture`.

    Raises:
        KeyError: if `attention_type` isn't registered.
        ValueError: for an unknown `init` or `pos_embed_type`, or an option that the scheme lacks.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        num_frames: int = 8,
        attention_type: str = "divided_space_time",
        init: str = "image",
        act_checkpoint: bool = False,
        *,
        pos_embed_type: str = "space_time",
        tubelet_size: int = 1,
        cls_in_time: bool = False,
        local_window: str = "quadrant",
        time_embed_amplitude: float = -1.0,
    ) -> None:
        super().__init__()
        block_class: type[SpaceTimeBlock] = ATTENTION_REGISTRY.get(attention_type)
        known = CHOICES["TIMESFORMER.POS_EMBED"]
        if pos_embed_type not in known:
            raise ValueError(f"unknown pos_embed_type {pos_embed_type!r}: {', '.join(known)}")
        if num_frames % tubelet_size:
            raise ValueError(f"{num_frames} frames don't divide into tubelets of {tubelet_size}")
        options = _options_of(attention_type, cls_in_time=cls_in_time, local_window=local_window)
        self.attention_type = attention_type
        self.one_sequence_per_clip = block_class.one_sequence_per_clip
        self.any_positions = block_class.any_positions
        self.num_classes = num_classes
        self.num_features = self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.act_checkpoint = act_checkpoint
        if time_embed_amplitude < 0:
            time_embed_amplitude = 1.0 if init == "scratch" else 0.0
        self.time_embed_amplitude = time_embed_amplitude

        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim, tubelet_size)
        self.num_prefix_tokens = int(block_class.cls_token)
        self._make_embeddings(pos_embed_type, num_frames // tubelet_size, drop_rate)

        self.blocks = nn.ModuleList(
            block_class(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=drop_path_rate * i / max(depth - 1, 1),
                norm_layer=norm_layer,
                **options,
            )
            for i in range(depth)
        )
        self.norm = norm_layer(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.init_weights(init)

    def _make_embeddings(self, pos_embed_type: str, times: int, drop_rate: float) -> None:
        """Add CLS, pos_embed and time_embed, as far as scheme and `pos_embed_type` have them."""
        D, positions = self.embed_dim, self.num_prefix_tokens + self.patch_embed.num_patches
        self.cls_token: nn.Parameter | None = None
        self.pos_embed: nn.Parameter | None = None
        self.time_embed: nn.Parameter | None = None
        if self.num_prefix_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        if pos_embed_type != "none":
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, D))
        self.pos_drop = nn.Dropout(drop_rate)
        if pos_embed_type == "space_time" and self.one_sequence_per_clip:
            self.time_embed = nn.Parameter(torch.zeros(1, times, D))
            self.time_drop = nn.Dropout(drop_rate)

    @torch.no_grad()
    def init_weights(self, init: str) -> None:
        """Fresh weights for every parameter but the patch projection, which keeps torch's own."""
        if init not in CHOICES["TIMESFORMER.INIT"]:
            raise ValueError(f"unknown init {init!r}: {' or '.join(CHOICES['TIMESFORMER.INIT'])}")
        self.apply(_init_linear)
        if init == "scratch":
            self.blocks.apply(_init_linear_by_inputs)
        for token in (self.cls_token, self.pos_embed):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        for block in self.blocks:
            assert isinstance(block, SpaceTimeBlock)
            for name in block.zero_init:
                for parameter in block.get_submodule(name).parameters():
                    parameter.zero_()
        if init == "scratch" and self.pos_embed is not None:
            nn.init.normal_(self.pos_embed, std=SCRATCH_POS_EMBED_STD)
        if self.time_embed is not None:
            self.time_embed.zero_()
            sines = sinusoidal_embed(self.time_embed.shape[1], self.embed_dim)
            self.time_embed.add_(sines, alpha=self.time_embed_amplitude)

    def get_classifier(self) -> nn.Module:
        """Return the last layer, from D features to K logits."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh one; 0 classes leave features as output."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.head.apply(_init_linear)

    def no_weight_decay(self) -> set[str]:
        """Parameters that other recipes leave out of weight decay; the published one doesn't."""
        return {"cls_token", "pos_embed", "time_embed"} & dict(self.named_parameters()).keys()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass to save memory, or don't."""
        self.act_checkpoint = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer, as timm's layer decay asks: embeddings, blocks.

        The last norm goes with the last block; the head is a layer of its own.
        """
        return layer_patterns("", coarse)

    def patch_grid(self, height: int, width: int) -> PatchGrid:
        """Return what `Tubes` of frames of so many pixels are chosen from."""
        P = self.patch_embed.patch_size
        return PatchGrid(height // P, width // P, self.any_positions)

    def embed(self, x: Tensor, tubes: Tubes | None = None) -> tuple[Tensor, TokenGrid]:
        """Clip (B, C, T, H, W) -> tokens in the layout that the scheme's blocks expect.

        Args:
            x: the clips.
            tubes: the patches that are embedded; all when None.
        """
        B = x.shape[0]
        if tubes is None:
            x, h, w = self.patch_embed(x)
        else:
            x, h, w = self.patch_embed.of_positions(x, tubes.positions)
        T, k = x.shape[0] // B, self.num_prefix_tokens
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(B * T, -1, -1), x], dim=1)
        if self.pos_embed is not None:
            pos_embed: Tensor = self.pos_embed
            grid = self.patch_embed.grid_size
            if (h, w) != grid:
                pos_embed = resize_pos_embed(pos_embed, (h, w), "nearest", grid, prefix_tokens=k)
            if tubes is None:
                x = x + pos_embed
            else:
                # Not by index: with several threads that adds gradients in any order.
                kept = F.embedding(tubes.positions, pos_embed[0, k:])  # (B, M, D)
                pos_embed = torch.cat([pos_embed[:, :k].expand(B, -1, -1), kept], dim=1)
                x = (x.unflatten(0, (B, T)) + pos_embed[:, None]).flatten(0, 1)
        if tubes is not None:
            _, h, w = tubes
        x = self.pos_drop(x)  # (B·T, k + N, D)
        if self.one_sequence_per_clip:
            cls = x.unflatten(0, (B, T))[:, 0, :k]
            patches = rearrange(x[:, k:], "(b t) n d -> (b n) t d", b=B)
            if self.time_embed is not None:
                patches = self.time_drop(patches + resize_time_embed(self.time_embed, T))
            x = torch.cat([cls, rearrange(patches, "(b n) t d -> b (n t) d", b=B)], dim=1)
        return x, TokenGrid(B, T, h, w)

    def run_block(
        self, block: nn.Module, x: Tensor, grid: TokenGrid, cls_only: bool = False
    ) -> Tensor:
        """One block, its activations recomputed in the backward pass if that is asked for."""
        inputs = (x, grid, True) if cls_only else (x, grid)  # which is what any block takes
        if self.training and (self.act_checkpoint or getattr(block, "recompute", False)):
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def forward_features(self, x: Tensor, tubes: Tubes | None = None) -> Tensor:
        """Clip (B, C, T, H, W) -> normalised features (B, D): CLS, or the mean of all patches.

        With `tubes`, of the patches that these keep.
        """
        return self.encode(*self.embed(x, tubes))

    def encode(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Tokens as `embed` makes them -> normalised features (B, D)."""
        for i, block in enumerate(self.blocks, 1):
            x = self.run_block(block, x, grid, i == len(self.blocks) and self._reads_cls_only())
        if not self.one_sequence_per_clip:
            x = x.unflatten(0, (grid.batch, grid.frames)).mean(dim=1)
        x = self.norm(x)
        return x[:, 0] if self.num_prefix_tokens else x.mean(dim=1)

    def _reads_cls_only(self) -> bool:
        """Say whether nobody sees what the last block's MLP makes of patches: features are CLS.

        Whoever counts operations or looks at modules by hooks, at the last norm too, sees the model
        as published. An MLP of another class might mix tokens.
        """
        last = self.blocks[-1]
        able = isinstance(last, SpaceTimeBlock) and last.takes_cls_only and type(last.mlp) is Mlp
        return able and self.num_prefix_tokens == 1 and not has_hooks(self.norm, *last.modules())

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, D) -> logits (B, K), or the features themselves."""
        return features if pre_logits else self.head(features)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        norm: bool = True,
        return_cls: bool = False,
    ) -> list[Any]:
        """Tokens after some blocks, each at its place in the clip.

        Args:
            x: clip (B, C, T, H, W).
            n: that many last blocks, or the numbers of blocks, from 0; negative from the end.
            norm: apply the model's last norm.
            return_cls: return (patches, CLS) pairs, CLS (B, D) being the mean over frames where
                every frame has one.

        Returns:
            For each block, in their order, patch tokens (B, T, h, w, D); T is T/t with tubelets.

        Raises:
            ValueError: there is no such block, or the scheme has no CLS.
        """
        depth, k = len(self.blocks), self.num_prefix_tokens
        try:
            numbers = [range(depth)[i] for i in (range(-n, 0) if isinstance(n, int) else n)]
        except IndexError:
            raise ValueError(f"the model has {depth} blocks, not {n}") from None
        if return_cls and not k:
            raise ValueError(f"{self.attention_type} attention has no CLS")
        x, grid = self.embed(x)
        B, T, h, _ = grid
        found = {}
        for i, block in enumerate(self.blocks):
            x = self.run_block(block, x, grid)
            if i not in numbers:
                continue
            y = self.norm(x) if norm else x
            if self.one_sequence_per_clip:
                patches = rearrange(y[:, k:], "b (h w t) d -> b t h w d", t=T, h=h)
                cls = y[:, 0]
            else:
                patches = rearrange(y[:, k:], "(b t) (h w) d -> b t h w d", b=B, h=h)
                cls = y[:, 0].unflatten(0, (B, T)).mean(dim=1)
            found[i] = (patches, cls) if return_cls else patches
        return [found[i] for i in numbers]

    def forward(self, x: Tensor, tubes: Tubes | None = None) -> Tensor:
        """Clip (B, C, T, H, W), normalised as the weights expect -> logits (B, K)."""
        return self.forward_head(self.forward_features(x, tubes))


def _options_of(attention_type: str, **given: Any) -> dict[str, Any]:
    """Return those of the options for some schemes that this one has.

    Raises:
        ValueError: it lacks one that is set.
    """
    options = ATTENTION_REGISTRY.get(attention_type).options
    defaults = inspect.signature(VisionTransformer).parameters
    for name, value in given.items():
        if name not in options and value != defaults[name].default:
            raise ValueError(f"{attention_type} attention has no option {name}")
    return {name: given[name] for name in options}


def _init_linear(module: nn.Module) -> None:
    """Paper's ViT initialisation: Linear weights trunc-normal std .02, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _init_linear_by_inputs(module: nn.Module) -> None:
    """Keep the scale of activations, which std .02 shrinks where the network is narrow."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)


def layer_patterns(prefix: str, coarse: bool = False) -> dict[str, Any]:
    """Regular expressions of a ViT's layers for timm; `prefix` stands before all names."""
    blocks = rf"^{prefix}blocks\.(\d+)"
    return {
        "stem": rf"^{prefix}(?:cls_token|pos_embed|time_embed|patch_embed)",
        "blocks": blocks if coarse else [(blocks, None), (rf"^{prefix}norm", (99999,))],
    }
