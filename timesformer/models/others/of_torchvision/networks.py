"""Video Swin, R(2+1)D and S3D as torchvision has them, for any number of classes and other sizes.

Shape letters: B batch, T frames, H×W pixels, C channels, K classes.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from timesformer.models.others.classifier import Classifier


class SwinTransformer3d(Classifier, video.SwinTransformer3d):
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


class R2Plus1D(Classifier, VideoResNet):
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


class S3D(Classifier, video.S3D):
    """S3D (arXiv 1712.04851): Inception with separable space and time convolutions.

    Clips of at least 5 frames of 17×17 pixels work, where torchvision's needs 14 of 224×224.

    Running statistics of BatchNorm take a tenth of each batch, torch's default, where torchvision
    takes a thousandth: short trainings would be evaluated with those of the start.

    Args:
        num_classes: classes K.
    """

    classifier_name = "classifier.1"
    num_features = 1024
    least_frames, least_side = 5, 17

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
