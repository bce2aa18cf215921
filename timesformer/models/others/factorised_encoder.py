"""Encoders in two stages: a ViT for every frame, then attention over time between their features.

VTN (Video Transformer Network, arXiv 2102.00719) and ViViT's factorised encoder (model 2 of
arXiv 2103.15691) are this with other depths and heads.

Shape letters: B batch, T frames, t frames of a tubelet, H×W pixels, D embedding width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from einops import rearrange
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.clips.tubes import PatchGrid, Tubes
from timesformer.models.architecture import TEMPORAL_DEPTHS, Architecture, knobs_of
from timesformer.models.attention import TokenGrid
from timesformer.models.attention.joint import JointSpaceTimeBlock
from timesformer.models.network.input import check_clips
from timesformer.models.network.pos_embed import (
    resize_pos_embed,
    resize_time_embed,
    sinusoidal_embed,
)
from timesformer.models.network.vision_transformer import VisionTransformer, layer_patterns
from timesformer.models.others.classifier import Classifier
from timesformer.models.registry import MODEL_REGISTRY


class FactorisedEncoder(Classifier):
    """A ViT reads each frame (or tubelet) by itself; a transformer over their CLS features follows.

    Other frame counts and sizes than built for work too: positions are resized in forward.

    Args:
        img_size: like all that aren't named here, see `Architecture`. drop_path_rate rises from 0
            in either stage, and act_checkpoint is for the ViT's blocks.
        temporal_depth: blocks of the transformer over time; 0 for none, where features are the
            mean over frames (ViViT's "average pooling baseline", §4.2), whatever their order.
        mlp_head: a hidden layer of width D with GELU before the last layer.

    Raises:
        ValueError: for an unknown `init` or `pos_embed_type`, a T that isn't a multiple of t, or a
            negative temporal_depth.
    """

    classifier_name = "head"
    head: nn.Module

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 400,
        num_frames: int = 8,
        *,
        embed_dim: int = 768,
        depth: int = 12,
        temporal_depth: int = TEMPORAL_DEPTHS["vivit_factorised_encoder"],
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        mlp_head: bool = False,
        tubelet_size: int = 1,
        pos_embed_type: str = "space_time",
        init: str = "image",
        act_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if num_frames % tubelet_size:
            raise ValueError(f"{num_frames} frames don't divide into tubelets of {tubelet_size}")
        if temporal_depth < 0:
            raise ValueError(f"temporal_depth must be at least 0, not {temporal_depth}")
        norm_layer = partial(nn.LayerNorm, eps=1e-6)
        self.num_features = self.embed_dim = embed_dim
        self.tubelet_size = tubelet_size
        # Space-only attention on clips of one tubelet is an image ViT.
        self.spatial = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=0,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            drop_path_rate=drop_path_rate,
            norm_layer=norm_layer,
            num_frames=tubelet_size,
            attention_type="space_only",
            init=init,
            act_checkpoint=act_checkpoint,
            pos_embed_type=pos_embed_type,
            tubelet_size=tubelet_size,
        )
        self.temporal_cls: nn.Parameter | None = None
        self.temporal_embed: nn.Parameter | None = None
        if temporal_depth:
            self.temporal_cls = nn.Parameter(torch.zeros(1, 1, embed_dim))
        if temporal_depth and pos_embed_type == "space_time":
            positions = 1 + num_frames // tubelet_size
            self.temporal_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))
        self.temporal_blocks = nn.ModuleList(
            JointSpaceTimeBlock(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=True,
                drop_path=drop_path_rate * i / max(temporal_depth - 1, 1),
                norm_layer=norm_layer,
            )
            for i in range(temporal_depth)
        )
        # The ViT's features are normalised already, and so their mean needs no other norm.
        self.norm = norm_layer(embed_dim) if temporal_depth else nn.Identity()
        self.pre_head = (
            nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.GELU()) if mlp_head else nn.Identity()
        )
        self._init_temporal(init)
        self.reset_classifier(num_classes)

    @torch.no_grad()
    def _init_temporal(self, init: str) -> None:
        """Fresh weights for all but the ViT, which has its own; as there for either `init`."""
        scratch = init == "scratch"
        for module in (*self.temporal_blocks.modules(), *self.pre_head.modules()):
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5 if scratch else 0.02
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        if self.temporal_cls is not None:
            nn.init.trunc_normal_(self.temporal_cls, std=0.02)
        if self.temporal_embed is None:
            return
        nn.init.trunc_normal_(self.temporal_embed, std=0.02)
        if scratch:
            times = self.temporal_embed.shape[1] - 1
            self.temporal_embed[:, 1:] = sinusoidal_embed(times, self.embed_dim)

    def image_part(self) -> tuple[str, VisionTransformer]:
        """Prefix of names, and the ViT under it that image weights are for."""
        return "spatial.", self.spatial

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of the ViT in the backward pass; those over time are few."""
        self.spatial.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer, as timm's layer decay asks.

        From the first layer to the last: patches and positions, the ViT's blocks, the blocks over
        time (CLS and positions with the first of them), the rest of the head.
        """
        blocks = r"^temporal_blocks\.(\d+)"
        fine = [(r"^temporal_(?:cls|embed)", (0,)), (blocks, None), (r"^norm", (99999,))]
        return layer_patterns(r"spatial\.", coarse) | {"temporal": blocks if coarse else fine}

    def fit_positions(
        self, state: Mapping[str, Tensor], pos_embed: str = "bicubic", time_embed: str = "nearest"
    ) -> dict[str, Tensor]:
        """Those positions of `state` that are for another clip size, resized to this model's.

        Args:
            state: weights.
            pos_embed: see `resize_pos_embed`.
            time_embed: see `resize_time_embed`.
        """
        fitted: dict[str, Tensor] = {}
        own = self.state_dict()
        for key in ("spatial.pos_embed", "temporal_embed"):
            if key not in state or key not in own:
                continue
            value, wanted = state[key], own[key]
            if value.shape[1] == wanted.shape[1] or value.shape[2] != wanted.shape[2]:
                continue
            if key == "temporal_embed":
                times = wanted.shape[1] - 1
                fitted[key] = self._resize_temporal(value.float(), times, time_embed)
            else:
                grid = self.spatial.patch_embed.grid_size
                fitted[key] = resize_pos_embed(value.float(), grid, pos_embed)
        return fitted

    @staticmethod
    def _resize_temporal(embed: Tensor, times: int, mode: str = "nearest") -> Tensor:
        """(1, 1 + T, D) -> (1, 1 + times, D); CLS keeps its position."""
        return torch.cat([embed[:, :1], resize_time_embed(embed[:, 1:], times, mode)], dim=1)

    def patch_grid(self, height: int, width: int) -> PatchGrid:
        """Return what `Tubes` of frames of so many pixels are chosen from."""
        return self.spatial.patch_grid(height, width)

    def forward_features(self, x: Tensor, tubes: Tubes | None = None) -> Tensor:
        """Clip (B, 3, T, H, W) -> features (B, D): CLS over time, or the mean over frames.

        With `tubes`, of the patches that these keep.
        """
        check_clips(x)
        if x.shape[2] % self.tubelet_size:
            raise ValueError(
                f"{x.shape[2]} frames don't divide into tubelets of {self.tubelet_size}"
            )
        B = x.shape[0]
        tubelets = rearrange(x, "b c (n t) h w -> (b n) c t h w", t=self.tubelet_size)
        if tubes is not None:  # of each tubelet the same
            positions = tubes.positions.repeat_interleave(len(tubelets) // B, dim=0)
            tubes = tubes._replace(positions=positions)
        x = self.spatial.forward_features(tubelets, tubes).unflatten(0, (B, -1))  # (B, T/t, D)
        if self.temporal_cls is None:
            return x.mean(dim=1)
        times = x.shape[1]
        x = torch.cat([self.temporal_cls.expand(B, -1, -1), x], dim=1)
        if self.temporal_embed is not None:
            x = x + self._resize_temporal(self.temporal_embed, times)
        grid = TokenGrid(B, times, 1, 1)
        for block in self.temporal_blocks:
            x = block(x, grid)
        return self.norm(x)[:, 0]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, D) -> logits (B, K), or what the last layer would see."""
        features = self.pre_head(features)
        return features if pre_logits else self.head(features)

    def forward(self, x: Tensor, tubes: Tubes | None = None) -> Tensor:
        """Clip (B, 3, T, H, W), normalised as the weights expect -> logits (B, K)."""
        return self.forward_head(self.forward_features(x, tubes))


FactorisedEncoder.knobs = knobs_of(FactorisedEncoder)


def _from_cfg(cfg: CfgNode, name: str, mlp_head: bool) -> FactorisedEncoder:
    knobs = Architecture.from_cfg(cfg, name).arguments_for(FactorisedEncoder)
    return FactorisedEncoder(mlp_head=mlp_head, **knobs)


@MODEL_REGISTRY.register()
def vtn(cfg: CfgNode) -> FactorisedEncoder:
    """Video Transformer Network (Neimark et al. 2021, arXiv 2102.00719, §3): 3 blocks over time.

    The paper's Longformer attends within windows, for videos of thousands of frames; a clip's
    frames fit in one window, so attention over them is full here. TIMESFORMER.TEMPORAL_DEPTH gives
    another number of blocks.
    """
    return _from_cfg(cfg, "vtn", mlp_head=True)


@MODEL_REGISTRY.register()
def vivit_factorised_encoder(cfg: CfgNode) -> FactorisedEncoder:
    """ViViT model 2 (Arnab et al. 2021, arXiv 2103.15691, §3.3): 4 blocks over time.

    The paper's tubelets are 16×16 pixels of 2 frames: TIMESFORMER.TUBELET_SIZE 2. Its Table 3 has
    0, 1, 4, 8 and 12 blocks: TIMESFORMER.TEMPORAL_DEPTH.
    """
    return _from_cfg(cfg, "vivit_factorised_encoder", mlp_head=False)
