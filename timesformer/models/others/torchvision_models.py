"""Baselines of other papers, as torchvision has them, to train and test in the same loop.

Names and shapes of weights are torchvision's, so `torchvision/NAME` weights load by name. What is
added: a head for any number of classes, clips of other sizes, and a registry entry. TIMESFORMER.*
says nothing about these models, PRETRAINED_MODEL apart.

Shape letters: B batch, T frames, H×W pixels, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.mvit import MSBlockConfig, PositionalEncoding
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from timesformer.models.architecture import Architecture
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.utils.errors import ConfigError


class _Classifier(nn.Module):
    """What every baseline adds to torchvision's class: the head by name, and another head."""

    classifier_name: ClassVar[str]
    num_features: int
    architecture: Architecture | None = None  # what `make_model` was told

    def get_classifier(self) -> nn.Module:
        """Return the last layer, from features to K logits."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one; 0 classes leave features as output."""
        head = self._make_head(num_classes) if num_classes > 0 else nn.Identity()
        self.set_submodule(self.classifier_name, head)
        if self.architecture:
            self.architecture = replace(self.architecture, num_classes=num_classes)

    def _make_head(self, num_classes: int) -> nn.Module:
        head = nn.Linear(self.num_features, num_classes)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head


class MViT(_Classifier, video.MViT):
    """Multiscale Vision Transformer (arXiv 2104.11227; v2: arXiv 2112.01526).

    Clips of another size than built for work too, which torchvision's don't: positions are resized.

    Args:
        version: 1 (absolute positions) or 2 (relative ones, residual pooling).
        num_frames: frames T of a clip.
        img_size: frame side in pixels, at least 32.
        num_classes: classes K.
    """

    classifier_name = "head.1"
    num_features = 768

    conv_proj: nn.Conv3d
    pos_encoding: PositionalEncoding
    blocks: nn.ModuleList
    norm: nn.LayerNorm
    head: nn.Sequential

    def __init__(
        self, version: int, num_frames: int = 16, img_size: int = 224, num_classes: int = 400
    ) -> None:
        second = version == 2
        # The patch convolution pads, so a remainder gets a position too: round up.
        side = -(-img_size // 4) * 4
        super().__init__(
            spatial_size=(side, side),
            temporal_size=-(-num_frames // 2) * 2,
            block_setting=_mvit_blocks(version),
            residual_pool=second,
            residual_with_cls_embed=False,
            rel_pos_embed=second,
            proj_after_attn=second,
            stochastic_depth_prob=0.2,
            num_classes=num_classes,
        )

    def positions(self, frames: int, height: int, width: int) -> Tensor | None:
        """Absolute positions (1 + T·h·w, C) of CLS and a token grid; None with relative ones."""
        stored = self.pos_encoding
        cls, spatial, temporal = stored.class_pos, stored.spatial_pos, stored.temporal_pos
        if cls is None or spatial is None or temporal is None:
            return None
        spatial = _resize_grid(spatial, stored.spatial_size, (height, width))
        grid = (_resize_line(temporal, frames)[:, None] + spatial).flatten(0, 1)
        return torch.cat([cls[None], grid])

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W), normalised as the weights expect -> logits (B, K)."""
        x = self.conv_proj(x)
        thw = tuple(x.shape[2:])
        cls = self.pos_encoding.class_token.expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x.flatten(2).transpose(1, 2)], dim=1)
        if (positions := self.positions(*thw)) is not None:
            x = x + positions
        for block in self.blocks:
            x, thw = block(x, thw)
        return self.head(self.norm(x)[:, 0])

    def fit_positions(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those positions of `state` that are for another clip size, resized to this model's."""
        fitted = {}
        own = self.state_dict()
        for key, value in state.items():
            name = key.rpartition(".")[2]
            if key not in own or not (name.startswith("rel_pos_") or name.endswith("_pos")):
                continue
            if value.ndim != 2 or value.shape == own[key].shape:
                continue
            if name == "spatial_pos":
                side = int(value.shape[0] ** 0.5)
                grid = self.pos_encoding.spatial_size
                fitted[key] = _resize_grid(value.float(), (side, side), grid)
            else:
                fitted[key] = _resize_line(value.float(), own[key].shape[0])
        return fitted


def _mvit_blocks(version: int) -> list[MSBlockConfig]:
    """Table 3 of MViT (v1-B) or Table 1 of MViTv2 (v2-S): 16 blocks in 4 stages.

    Heads double where a stage begins (blocks 1, 3 and 14), and queries are pooled there. Version 1
    widens in the block before, version 2 in that block. Keys are pooled so that the stride to the
    patch grid stays 8.
    """
    heads = [1] + [2] * 2 + [4] * 11 + [8] * 2
    widths = [96 * count for count in heads]
    if version == 1:
        inputs, outputs = widths, [*widths[1:], widths[-1]]
    else:
        inputs, outputs = [widths[0], *widths[:-1]], widths
    blocks = []
    for i, count in enumerate(heads):
        starts_stage = i in (1, 3, 14)
        pools = starts_stage or version == 2
        blocks.append(
            MSBlockConfig(
                num_heads=count,
                input_channels=inputs[i],
                output_channels=outputs[i],
                kernel_q=[3, 3, 3] if pools else [],
                kernel_kv=[3, 3, 3],
                stride_q=([1, 2, 2] if starts_stage else [1, 1, 1]) if pools else [],
                stride_kv=[1, 8 // count, 8 // count],
            )
        )
    return blocks


def _resize_line(table: Tensor, length: int) -> Tensor:
    """(L, C) -> (length, C), linearly."""
    if table.shape[0] == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear")[0].T


def _resize_grid(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """(h·w, C) for grid `source` -> (h'·w', C) for grid `target`, bicubic."""
    if source == target:
        return table
    grid = table.T.unflatten(1, source)[None]
    return F.interpolate(grid, size=target, mode="bicubic")[0].flatten(1).T


class SwinTransformer3d(_Classifier, video.SwinTransformer3d):
    """Video Swin Transformer (arXiv 2106.13230): attention in shifted windows of 8×7×7 tokens.

    Clips of any size work: windows shrink where the clip is smaller.

    Args:
        embed_dim: width C of the first stage; it doubles with each.
        depths: blocks of the four stages.
        num_heads: heads of the four stages.
        num_classes: classes K.
    """

    classifier_name = "head"

    def __init__(
        self, embed_dim: int, depths: list[int], num_heads: list[int], num_classes: int = 400
    ) -> None:
        super().__init__(
            patch_size=[2, 4, 4],
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=[8, 7, 7],
            stochastic_depth_prob=0.1,
            num_classes=num_classes,
        )


class R2Plus1D(_Classifier, VideoResNet):
    """R(2+1)D-18 (arXiv 1711.11248): a ResNet of spatial, then temporal convolutions.

    Clips of any size work.

    Args:
        num_classes: classes K.
    """

    classifier_name = "fc"
    num_features = 512

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__(
            block=BasicBlock,
            conv_makers=[Conv2Plus1D] * 4,
            layers=[2, 2, 2, 2],
            stem=R2Plus1dStem,
            num_classes=num_classes,
        )


class S3D(_Classifier, video.S3D):
    """S3D (arXiv 1712.04851): Inception with separable space and time convolutions.

    Clips of at least 5 frames of 17×17 pixels work, where torchvision's needs 14 of 224×224.

    Running statistics of BatchNorm take a tenth of each batch, torch's default, where torchvision
    takes a thousandth: short trainings would be evaluated with those of the start.

    Args:
        num_classes: classes K.
    """

    classifier_name = "classifier.1"
    num_features = 1024

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__(
            num_classes=num_classes,
            norm_layer=partial(nn.BatchNorm3d, eps=0.001, momentum=0.1),
        )
        self.avgpool = _AvgPoolThatFits(kernel_size=(2, 7, 7), stride=1)

    def _make_head(self, num_classes: int) -> nn.Module:
        return nn.Conv3d(self.num_features, num_classes, kernel_size=1)


class _AvgPoolThatFits(nn.AvgPool3d):
    """Average pooling whose kernel shrinks to the input where that is smaller."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.kernel_size, tuple)
        kernel = [min(k, size) for k, size in zip(self.kernel_size, x.shape[2:], strict=True)]
        return F.avg_pool3d(x, kernel, self.stride)


def _check(cfg: CfgNode, frames: int = 1, side: int = 1) -> None:
    """Make sure that the model can do what the config says."""
    name = cfg.MODEL.MODEL_NAME
    if frames > cfg.DATA.NUM_FRAMES:
        raise ConfigError(
            f"DATA.NUM_FRAMES {cfg.DATA.NUM_FRAMES} is too few: {name} needs at least {frames}"
        )
    for key in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE"):
        if cfg.DATA[key] < side:
            raise ConfigError(
                f"DATA.{key} {cfg.DATA[key]} is too small: {name} needs at least {side}"
            )
    if cfg.TIMESFORMER.ACT_CHECKPOINT:
        raise ConfigError(
            f"TIMESFORMER.ACT_CHECKPOINT: {name} can't recompute activations; set it to False"
        )


def _mvit(cfg: CfgNode, version: int) -> MViT:
    _check(cfg, side=32)
    return MViT(version, **Architecture.from_cfg(cfg).arguments_for(MViT))


@MODEL_REGISTRY.register()
def mvit_v1_b(cfg: CfgNode) -> MViT:
    """MViT-B (Fan et al. 2021, arXiv 2104.11227); torchvision's weights are for 16 frames."""
    return _mvit(cfg, 1)


@MODEL_REGISTRY.register()
def mvit_v2_s(cfg: CfgNode) -> MViT:
    """MViTv2-S (Li et al. 2022, arXiv 2112.01526); torchvision's weights are for 16 frames."""
    return _mvit(cfg, 2)


def _swin(
    cfg: CfgNode, embed_dim: int, depths: list[int], num_heads: list[int]
) -> SwinTransformer3d:
    _check(cfg)
    return SwinTransformer3d(embed_dim, depths, num_heads, cfg.MODEL.NUM_CLASSES)


@MODEL_REGISTRY.register()
def swin3d_t(cfg: CfgNode) -> SwinTransformer3d:
    """Video Swin-T (Liu et al. 2022, arXiv 2106.13230)."""
    return _swin(cfg, 96, [2, 2, 6, 2], [3, 6, 12, 24])


@MODEL_REGISTRY.register()
def swin3d_s(cfg: CfgNode) -> SwinTransformer3d:
    """Video Swin-S (Liu et al. 2022, arXiv 2106.13230)."""
    return _swin(cfg, 96, [2, 2, 18, 2], [3, 6, 12, 24])


@MODEL_REGISTRY.register()
def swin3d_b(cfg: CfgNode) -> SwinTransformer3d:
    """Video Swin-B (Liu et al. 2022, arXiv 2106.13230)."""
    return _swin(cfg, 128, [2, 2, 18, 2], [4, 8, 16, 32])


@MODEL_REGISTRY.register()
def r2plus1d_18(cfg: CfgNode) -> R2Plus1D:
    """R(2+1)D-18 (Tran et al. 2018, arXiv 1711.11248)."""
    _check(cfg)
    return R2Plus1D(cfg.MODEL.NUM_CLASSES)


@MODEL_REGISTRY.register()
def s3d(cfg: CfgNode) -> S3D:
    """S3D (Xie et al. 2018, arXiv 1712.04851)."""
    _check(cfg, frames=5, side=17)
    return S3D(cfg.MODEL.NUM_CLASSES)
