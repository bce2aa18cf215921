"""X3D (Feichtenhofer 2020, arXiv 2004.04730): a small image network, expanded along every axis.

Weights have PySlowFast's names and shapes.

Shape letters: B batch, C channels, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.models.architecture import knobs_of
from timesformer.models.network.input import check_clips
from timesformer.models.others.classifier import Classifier
from timesformer.models.others.residual import (
    ConvolutionalHead,
    Pathways,
    ResidualBlock,
    ResidualNetwork,
    branch,
    conv,
    from_cfg,
    start_fresh,
)
from timesformer.models.registry import MODEL_REGISTRY

CHANNELS = (24, 48, 96, 192)  # of the four stages of X3D-XS to -M
DEPTHS = (3, 5, 11, 7)
HIDDEN = 2048


class SqueezeExcitation(nn.Module):
    """Scale channels by what the whole clip says of them (arXiv 1709.01507).

    Args:
        channels: C; a sixteenth of them is between, rounded to 8, at least 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wanted = channels / 16
        between = max(8, int(wanted + 4) // 8 * 8)
        if between < 0.9 * wanted:
            between += 8
        self.fc1 = nn.Conv3d(channels, between, 1)
        self.fc2 = nn.Conv3d(between, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, t, h, w) -> the same shape."""
        said = F.relu(self.fc1(x.mean(dim=(2, 3, 4), keepdim=True)))
        return x * self.fc2(said).sigmoid()


class X3DHead(ConvolutionalHead):
    """`ConvolutionalHead` between two more layers (arXiv 2004.04730, Table 1).

    Args:
        img_size: see there.
        inputs: channels of the last stage.
        inner: channels that are pooled.
        hidden: channels C of the layer before the last.
    """

    def __init__(
        self, img_size: int | tuple[int, int], inputs: int, inner: int, hidden: int
    ) -> None:
        super().__init__(img_size)
        self.conv_5 = conv(inputs, inner, (1, 1, 1))
        self.conv_5_bn = nn.BatchNorm3d(inner)
        self.lin_5 = conv(inner, hidden, (1, 1, 1))

    def pool(self, maps: Sequence[Tensor]) -> Tensor:
        """[(B, C, t, h, w)] -> features (B, positions, C)."""
        inner = F.relu(self.conv_5_bn(self.conv_5(maps[0])))
        pooled = super().pool([inner])
        return F.relu(F.linear(pooled, self.lin_5.weight.flatten(1)))


class X3D(ResidualNetwork):
    """X3D of the width and depth of XS, S and M, which differ in their clips.

    Clips of other sizes than built for work too: see `ConvolutionalHead`.

    Args:
        num_classes: like all others, see `Architecture`.
    """

    def __init__(
        self,
        num_classes: int = 400,
        img_size: int | tuple[int, int] = 224,
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        channels = [max(1, round(c * width)) for c in CHANNELS]
        self.s1 = Pathways([{"stem": _stem(channels[0])}])
        inputs = channels[0]
        for stage, (outputs, depth) in enumerate(zip(channels, DEPTHS, strict=True), start=2):
            self.add_module(f"s{stage}", Pathways([_stage(inputs, outputs, depth)]))
            inputs = outputs
        self.num_features = round(HIDDEN * width)
        self.head = X3DHead(img_size, inputs, _inner(inputs), self.num_features)
        start_fresh(self)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Clip (B, 3, T, H, W) -> features [(B, C, T, H/32, W/32)]."""
        check_clips(x)
        pathways = [x]
        for stage in range(1, 6):
            pathways = self.get_submodule(f"s{stage}")(pathways)
        return pathways


X3D.knobs = Classifier.knobs | knobs_of(X3D)


def _inner(outputs: int) -> int:
    """Return the channels within a block: 2.25 for each that it gives."""
    return int(2.25 * outputs)


def _stem(width: int) -> nn.Module:
    """3×3 pixels, then five frames, each channel by itself."""
    return nn.Sequential(
        OrderedDict(
            conv_xy=conv(3, width, (1, 3, 3), (1, 2, 2)),
            conv=conv(width, width, (5, 1, 1), groups=width),
            bn=nn.BatchNorm3d(width),
            relu=nn.ReLU(inplace=True),
        )
    )


def _stage(inputs: int, outputs: int, depth: int) -> dict[str, nn.Module]:
    """Make a stage's blocks; the first halves the sides, every other squeezes and excites."""
    blocks: dict[str, nn.Module] = {}
    inner = _inner(outputs)
    for i in range(depth):
        stride = 2 if not i else 1
        after: dict[str, nn.Module] = {} if i % 2 else {"se": SqueezeExcitation(inner)}
        inside = branch(
            inner,
            a=conv(inputs, inner, (1, 1, 1)),
            b=conv(inner, inner, (3, 3, 3), (1, stride, stride), groups=inner),
            c=conv(inner, outputs, (1, 1, 1)),
            after_b={**after, "b_relu": nn.SiLU(inplace=True)},
        )
        blocks[f"res{i}"] = ResidualBlock(inside, inputs, outputs, stride)
        inputs = outputs
    return blocks


@MODEL_REGISTRY.register()
def x3d_m(cfg: CfgNode) -> X3D:
    """X3D-M (arXiv 2004.04730): 16 frames at rate 5."""
    return from_cfg(cfg, X3D)
