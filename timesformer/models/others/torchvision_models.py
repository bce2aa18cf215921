"""Baselines of other papers, as torchvision has them, to train and test in the same loop.

Names and shapes of weights are torchvision's, so `torchvision/NAME` weights load by name. What is
added: a head for any number of classes, clips of other sizes, and a registry entry. TIMESFORMER.*
says nothing about these models, PRETRAINED_MODEL apart.

The networks are in `of_torchvision`, and imported by whoever makes one: torchvision takes as long
to import as torch itself, which a TimeSformer would pay for at every start.
"""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import nn

from timesformer.models.others.classifier import check_cfg, classes
from timesformer.models.registry import MODEL_REGISTRY


def _mvit(cfg: CfgNode, version: int) -> nn.Module:
    from timesformer.models.others.of_torchvision.mvit import MViT

    check_cfg(cfg, side=32)
    data = cfg.DATA
    return MViT(version, data.NUM_FRAMES, data.TRAIN_CROP_SIZE, classes(cfg))


@MODEL_REGISTRY.register()
def mvit_v1_b(cfg: CfgNode) -> nn.Module:
    """MViT-B (Fan et al. 2021, arXiv 2104.11227); torchvision's weights are for 16 frames."""
    return _mvit(cfg, 1)


@MODEL_REGISTRY.register()
def mvit_v2_s(cfg: CfgNode) -> nn.Module:
    """MViTv2-S (Li et al. 2022, arXiv 2112.01526); torchvision's weights are for 16 frames."""
    return _mvit(cfg, 2)


def _swin(cfg: CfgNode, embed_dim: int, depths: list[int], num_heads: list[int]) -> nn.Module:
    from timesformer.models.others.of_torchvision.networks import SwinTransformer3d

    check_cfg(cfg)
    return SwinTransformer3d(embed_dim, depths, num_heads, classes(cfg))


@MODEL_REGISTRY.register()
def swin3d_t(cfg: CfgNode) -> nn.Module:
    """Video Swin-T (Liu et al. 2022, arXiv 2106.13230)."""
    return _swin(cfg, 96, [2, 2, 6, 2], [3, 6, 12, 24])


@MODEL_REGISTRY.register()
def swin3d_s(cfg: CfgNode) -> nn.Module:
    """Video Swin-S (Liu et al. 2022, arXiv 2106.13230)."""
    return _swin(cfg, 96, [2, 2, 18, 2], [3, 6, 12, 24])


@MODEL_REGISTRY.register()
def swin3d_b(cfg: CfgNode) -> nn.Module:
    """Video Swin-B (Liu et al. 2022, arXiv 2106.13230)."""
    return _swin(cfg, 128, [2, 2, 18, 2], [4, 8, 16, 32])


@MODEL_REGISTRY.register()
def r2plus1d_18(cfg: CfgNode) -> nn.Module:
    """R(2+1)D-18 (Tran et al. 2018, arXiv 1711.11248)."""
    from timesformer.models.others.of_torchvision.networks import R2Plus1D

    check_cfg(cfg)
    return R2Plus1D(classes(cfg))


@MODEL_REGISTRY.register()
def s3d(cfg: CfgNode) -> nn.Module:
    """S3D (Xie et al. 2018, arXiv 1712.04851)."""
    from timesformer.models.others.of_torchvision.networks import S3D

    check_cfg(cfg, S3D.least_frames, S3D.least_side)
    return S3D(classes(cfg))
