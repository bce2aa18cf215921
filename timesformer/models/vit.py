"""The video transformer: patches, positions, blocks, head (paper, §3).

Shape letters: B batch, C channels, T frames, H×W pixels, P patch side, h = H/P, w = W/P,
N = h·w patches of a frame, D embedding width, K classes. A clip batch is (B, C, T, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import rearrange
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timesformer.models.attention import ATTENTION_REGISTRY, SpaceTimeBlock, TokenGrid
from timesformer.models.layers import Attention, Mlp
from timesformer.models.pos_embed import resize_pos_embed, resize_time_embed, sinusoidal_embed
from timesformer.models.pretrained import load_pretrained
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.utils.errors import ConfigError

__all__ = [
    "Attention",
    "Block",
    "Mlp",
    "PatchEmbed",
    "TimeSformer",
    "VisionTransformer",
    "vit_base_patch16_224",
    "vit_large_patch16_224",
    "vit_small_patch16_224",
    "vit_tiny_patch16_224",
]

Block = SpaceTimeBlock

# Measured on Synthetic: see VisionTransformer's `init`.
SCRATCH_POS_EMBED_STD = 0.5

VIT_BASE_SIZES = (768, 12, 12)  # width, depth, heads


class PatchEmbed(nn.Module):
    """Cuts frames into P×P patches and projects each to D numbers.

    Args:
        img_size: frame side in pixels, or (H, W); sets the size of the stored pos_embed only.
        patch_size: patch side P in pixels.
        in_chans: channels C.
        embed_dim: embedding width D.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_size = patch_size
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Clip (B, C, T, H, W) -> tokens (B·T, h·w, D) with patches row-major, h, w.

        Raises:
            ValueError: if the input isn't 5-D, or H or W isn't a multiple of P.
        """
        if x.ndim != 5:
            raise ValueError(f"a clip batch is (B, C, T, H, W); got shape {tuple(x.shape)}")
        if x.shape[3] % self.patch_size or x.shape[4] % self.patch_size:
            raise ValueError(
                f"frames of {x.shape[3]}×{x.shape[4]} pixels don't divide into patches of "
                f"{self.patch_size}×{self.patch_size}"
            )
        x = self.proj(rearrange(x, "b c t h w -> (b t) c h w"))
        return x.flatten(2).transpose(1, 2), x.shape[2], x.shape[3]


class VisionTransformer(nn.Module):
    """A ViT over the patches of a clip, with one of the registered space-time schemes.

    Arguments up to `attention_type` are the published ones, and so are all state-dict names.

    Args:
        img_size: frame side in pixels, or (H, W). Other sizes work too: pos_embed is resized.
        patch_size: patch side P in pixels.
        in_chans: channels C.
        num_classes: classes K; 0 leaves the head out.
        embed_dim: embedding width D.
        depth: number of blocks.
        num_heads: heads of every attention.
        mlp_ratio: hidden width of the MLPs over D.
        qkv_bias: whether query, key and value projections have a bias.
        qk_scale: factor on q·k; (D/heads)^-0.5 when None.
        drop_rate: dropout on embeddings, projections and MLPs.
        attn_drop_rate: dropout on attention weights.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0 over the depth.
        norm_layer: makes a normalisation layer from D.
        num_frames: frames T of the stored time_embed. Other T work too: it is resized.
        attention_type: name of a registered scheme.
        init: "image", as published, expects image weights to follow: time_embed 0, pos_embed and
            Linear weights of std .02. "scratch" is for training without them: sinusoidal
            time_embed of unit amplitude, pos_embed of std .5, Linear weights of std
            1/sqrt(inputs). Without these a small model sits for many epochs at knowing the axis
            of a motion and not its direction (docs/synthetic.md).
        act_checkpoint: recompute each block's activations in the backward pass to save memory.

    Raises:
        KeyError: if `attention_type` isn't registered.
        ValueError: for an unknown `init`.
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
    ) -> None:
        super().__init__()
        block_class: type[SpaceTimeBlock] = ATTENTION_REGISTRY.get(attention_type)
        self.attention_type = attention_type
        self.one_sequence_per_clip = block_class.one_sequence_per_clip
        self.num_classes = num_classes
        self.num_features = self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.act_checkpoint = act_checkpoint

        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        if self.one_sequence_per_clip:
            self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
            self.time_drop = nn.Dropout(drop_rate)

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
            )
            for i in range(depth)
        )
        self.norm = norm_layer(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.init_weights(init)

    @torch.no_grad()
    def init_weights(self, init: str) -> None:
        """Fresh weights for every parameter but the patch projection, which keeps torch's own."""
        if init not in ("image", "scratch"):
            raise ValueError(f"unknown init {init!r}: image or scratch")
        self.apply(_init_linear)
        if init == "scratch":
            self.blocks.apply(_init_linear_by_inputs)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            assert isinstance(block, SpaceTimeBlock)
            for name in block.zero_init:
                for parameter in block.get_submodule(name).parameters():
                    parameter.zero_()
        if init == "scratch":
            nn.init.normal_(self.pos_embed, std=SCRATCH_POS_EMBED_STD)
            if self.one_sequence_per_clip:
                self.time_embed.copy_(sinusoidal_embed(self.num_frames, self.embed_dim))

    def get_classifier(self) -> nn.Module:
        """The last layer, from D features to K logits."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by a fresh one; 0 classes leave features as output."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.head.apply(_init_linear)

    def embed(self, x: Tensor) -> tuple[Tensor, TokenGrid]:
        """Clip (B, C, T, H, W) -> tokens in the layout that the scheme's blocks expect."""
        B, _, T = x.shape[:3]
        x, h, w = self.patch_embed(x)
        pos_embed: Tensor = self.pos_embed
        if (h, w) != self.patch_embed.grid_size:
            pos_embed = resize_pos_embed(pos_embed, (h, w), "nearest", self.patch_embed.grid_size)
        x = torch.cat([self.cls_token.expand(B * T, -1, -1), x], dim=1)
        x = self.pos_drop(x + pos_embed)  # (B·T, 1 + N, D)
        if self.one_sequence_per_clip:
            cls = x.unflatten(0, (B, T))[:, 0, :1]
            patches = rearrange(x[:, 1:], "(b t) n d -> (b n) t d", b=B)
            patches = self.time_drop(patches + resize_time_embed(self.time_embed, T))
            x = torch.cat([cls, rearrange(patches, "(b n) t d -> b (n t) d", b=B)], dim=1)
        return x, TokenGrid(B, T, h, w)

    def forward_features(self, x: Tensor) -> Tensor:
        """Clip (B, C, T, H, W) -> normalised CLS features (B, D)."""
        x, grid = self.embed(x)
        for block in self.blocks:
            if self.act_checkpoint and self.training:
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        if not self.one_sequence_per_clip:
            x = x.unflatten(0, (grid.batch, grid.frames)).mean(dim=1)
        return self.norm(x)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, C, T, H, W), normalised as the weights expect -> logits (B, K)."""
        return self.head(self.forward_features(x))


def _init_linear(module: nn.Module) -> None:
    """Paper's ViT initialisation: Linear weights trunc-normal std .02, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _init_linear_by_inputs(module: nn.Module) -> None:
    """Keeps the scale of activations, which std .02 shrinks where the network is narrow."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)


class TimeSformer(nn.Module):
    """The paper's model: a `VisionTransformer` of ViT sizes, held as `.model`.

    Args:
        img_size: frame side in pixels, or (H, W).
        patch_size: patch side P in pixels.
        num_classes: classes K.
        num_frames: frames T of a clip.
        attention_type: name of a registered scheme.
        pretrained_model: weights to load: a file, `timm/NAME`, or '' for none
            (see `timesformer.models.pretrained.load_pretrained`).
        embed_dim: embedding width D; like all below, ViT-B when not given.
        depth: number of blocks.
        num_heads: heads of every attention.
        mlp_ratio: hidden width of the MLPs over D.
        drop_path_rate: stochastic depth of the last block.
        init: see `VisionTransformer`.
        act_checkpoint: see `VisionTransformer`.

    Raises:
        WeightsError: if `pretrained_model` can't be read or doesn't belong to this model.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 400,
        num_frames: int = 8,
        attention_type: str = "divided_space_time",
        pretrained_model: str = "",
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        init: str = "image",
        act_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.model = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            drop_path_rate=drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_frames=num_frames,
            attention_type=attention_type,
            init=init,
            act_checkpoint=act_checkpoint,
        )
        if pretrained_model:
            load_pretrained(self.model, pretrained_model)

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) -> logits (B, K)."""
        return self.model(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer, as timm's layer decay asks: embeddings, blocks.

        The last norm goes with the last block; the head is a layer of its own.
        """
        return {
            "stem": r"^model\.(?:cls_token|pos_embed|time_embed|patch_embed)",
            "blocks": r"^model\.blocks\.(\d+)"
            if coarse
            else [
                (r"^model\.blocks\.(\d+)", None),
                (r"^model\.norm", (99999,)),
            ],
        }


def _from_config(cfg: CfgNode, embed_dim: int, depth: int, num_heads: int) -> TimeSformer:
    options = cfg.TIMESFORMER
    return TimeSformer(
        img_size=cfg.DATA.TRAIN_CROP_SIZE,
        patch_size=options.PATCH_SIZE,
        num_classes=cfg.MODEL.NUM_CLASSES,
        num_frames=cfg.DATA.NUM_FRAMES,
        attention_type=options.ATTENTION_TYPE,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=options.MLP_RATIO,
        drop_path_rate=options.DROP_PATH_RATE,
        init=options.INIT,
        act_checkpoint=options.ACT_CHECKPOINT,
    )


@MODEL_REGISTRY.register()
def vit_base_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-B, or any other size that TIMESFORMER.{EMBED_DIM, DEPTH, NUM_HEADS} gives."""
    options = cfg.TIMESFORMER
    return _from_config(cfg, options.EMBED_DIM, options.DEPTH, options.NUM_HEADS)


def _named_size(cfg: CfgNode, *sizes: int) -> TimeSformer:
    options = cfg.TIMESFORMER
    asked = (options.EMBED_DIM, options.DEPTH, options.NUM_HEADS)
    if asked not in (sizes, VIT_BASE_SIZES):
        raise ConfigError(
            f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} is of width, depth, heads {sizes}, but "
            f"TIMESFORMER.EMBED_DIM, DEPTH, NUM_HEADS say {asked}: leave these out, or set "
            "MODEL.MODEL_NAME vit_base_patch16_224, which takes them"
        )
    return _from_config(cfg, *sizes)


@MODEL_REGISTRY.register()
def vit_tiny_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-Ti: width 192, 12 blocks, 3 heads."""
    return _named_size(cfg, 192, 12, 3)


@MODEL_REGISTRY.register()
def vit_small_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-S: width 384, 12 blocks, 6 heads."""
    return _named_size(cfg, 384, 12, 6)


@MODEL_REGISTRY.register()
def vit_large_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-L: width 1024, 24 blocks, 16 heads."""
    return _named_size(cfg, 1024, 24, 16)
