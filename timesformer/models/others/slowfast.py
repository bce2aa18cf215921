"""SlowFast, its slow pathway alone, and I3D as a ResNet: ResNet-50 with kernels in time.

SlowFast: Feichtenhofer et al. 2019, arXiv 1812.03982. I3D: Carreira & Zisserman 2017, arXiv
1705.07750, here the ResNet of Wang et al. 2018 (arXiv 1711.07971), which papers compare with.
Weights have PySlowFast's names and shapes.

Shape letters: B batch, C channels, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.models.architecture import knobs_of
from timesformer.models.network.input import check_clips
from timesformer.models.others.residual import (
    ConvolutionalHead,
    Pathways,
    ResidualBlock,
    ResidualNetwork,
    bottleneck,
    conv,
    from_cfg,
    start_fresh,
)
from timesformer.models.registry import MODEL_REGISTRY

DEPTHS = (3, 4, 6, 3)  # ResNet-50
STEM = 64  # channels of a ResNet's first layer


class Kernels(NamedTuple):
    """How many frames the kernels of a pathway span.

    Attributes:
        stem: the first layer's.
        stages: of each stage, those of its blocks, over and over.
    """

    stem: int
    stages: tuple[tuple[int, ...], ...]


SLOW = Kernels(1, ((1,), (1,), (3,), (3,)))
FAST = Kernels(5, ((3,), (3,), (3,), (3,)))
I3D = Kernels(5, ((3,), (3, 1), (3, 1), (1, 3)))


class Fusion(nn.Module):
    """Give the slow pathway what the fast one has seen (arXiv 1812.03982, §3.4, "time-strided").

    Args:
        channels: C of the fast pathway; twice as many are added to the slow one.
        alpha: its frames for one of the slow pathway.
    """

    def __init__(self, channels: int, alpha: int) -> None:
        super().__init__()
        self.conv_f2s = conv(channels, 2 * channels, (7, 1, 1), (alpha, 1, 1))
        self.bn = nn.BatchNorm3d(2 * channels)

    def forward(self, pathways: list[Tensor]) -> list[Tensor]:
        """Slow (B, C', T / alpha, h, w) and fast (B, C, T, h, w) -> slow with 2 C more, fast."""
        slow, fast = pathways
        return [torch.cat([slow, F.relu(self.bn(self.conv_f2s(fast)))], dim=1), fast]


class ResNet3d(ResidualNetwork):
    """A ResNet-50 of 3D convolutions, of one pathway or, as SlowFast, of two.

    Clips of other sizes than built for work too: see `ConvolutionalHead`.

    Args:
        kernels: of each pathway: one, or a slow and a fast one.
        num_classes: like all below that aren't named, see `Architecture`.
        alpha: frames of the fast pathway for one of the slow, which takes T / alpha frames, the
            first, the last and those evenly between them (as PySlowFast packs them, rather than
            every alpha-th of the paper).
        beta_inv: channels of the slow pathway for one of the fast.
        halve_time: pool pairs of frames after the first stage.

    Raises:
        ValueError: T isn't a multiple of alpha, or there would be parts of channels.
    """

    s1: Pathways
    s2: Pathways

    def __init__(
        self,
        kernels: tuple[Kernels, ...],
        num_classes: int = 400,
        num_frames: int = 8,
        img_size: int | tuple[int, int] = 224,
        *,
        width: float = 1.0,
        alpha: int = 4,
        beta_inv: int = 8,
        halve_time: bool = False,
    ) -> None:
        super().__init__()
        self.two = len(kernels) > 1
        self.alpha, self.halve_time = alpha, halve_time
        self._check_frames(num_frames)
        stem = round(STEM * width)
        if stem < 1 or (self.two and stem % beta_inv):
            step = beta_inv / STEM if self.two else 1 / STEM
            raise ValueError(f"width {width} leaves parts of channels: take a multiple of {step:g}")
        widths = [stem, stem // beta_inv][: len(kernels)]
        self.s1 = Pathways([_stem(w, k.stem) for w, k in zip(widths, kernels, strict=True)])
        inputs = widths
        for stage in range(4):
            if self.two:
                self.add_module(f"s{stage + 1}_fuse", Fusion(inputs[1], alpha))
                inputs = [inputs[0] + 2 * inputs[1], inputs[1]]
            inner = [w * 2**stage for w in widths]
            blocks = [
                _stage(n, i, k.stages[stage], stage)
                for n, i, k in zip(inputs, inner, kernels, strict=True)
            ]
            self.add_module(f"s{stage + 2}", Pathways(blocks))
            inputs = [4 * i for i in inner]
        self.num_features = sum(inputs)
        self.head = ConvolutionalHead(img_size)
        start_fresh(self)
        self.reset_classifier(num_classes)

    @property
    def least_frames(self) -> int:  # type: ignore[override]
        """Frames that a clip needs."""
        return self.alpha if self.two else 1 + self.halve_time

    def _check_frames(self, frames: int) -> None:
        if self.two and frames % self.alpha:
            raise ValueError(
                f"{frames} frames aren't a multiple of {self.alpha}: the slow pathway takes one of "
                f"{self.alpha}"
            )

    def pathways(self, x: Tensor) -> list[Tensor]:
        """Return what each pathway takes of a clip (B, 3, T, H, W)."""
        if not self.two:
            return [x]
        frames = slow_frames(x.shape[2], self.alpha)
        return [x.index_select(2, torch.tensor(frames, device=x.device)), x]

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Clip (B, 3, T, H, W) -> features (B, C, t, H/32, W/32) of each pathway."""
        check_clips(x, least_frames=self.least_frames)
        self._check_frames(x.shape[2])
        pathways = self.s1(self.pathways(x))
        for stage in range(2, 6):
            if self.two:
                pathways = self.get_submodule(f"s{stage - 1}_fuse")(pathways)
            pathways = self.get_submodule(f"s{stage}")(pathways)
            if stage == 2 and self.halve_time:
                pathways = [F.max_pool3d(pathways[0], (2, 1, 1))]
        return pathways


ResNet3d.knobs = knobs_of(ResNet3d)


def slow_frames(frames: int, alpha: int) -> list[int]:
    """Return which of a clip's frames the slow pathway takes, one of `alpha`, from first to last.

    They are torch.linspace(0, frames - 1, frames // alpha).long(), as PySlowFast's, with what its
    float32 makes of them. In a graph that another program computes they have to be numbers:
    OpenVINO rounds otherwise and would take other frames.
    """
    n, last = frames // alpha, np.float32(frames - 1)
    step = last / np.float32(max(n - 1, 1))
    first = [step * np.float32(i) for i in range(n // 2)]
    rest = [last - step * np.float32(n - 1 - i) for i in range(n // 2, n)]
    return [int(x) for x in first + (rest if n > 1 else [0])]


def _stem(width: int, frames: int) -> dict[str, nn.Module]:
    stem = nn.Sequential(
        OrderedDict(
            conv=conv(3, width, (frames, 7, 7), (1, 2, 2)),
            bn=nn.BatchNorm3d(width),
            relu=nn.ReLU(inplace=True),
            pool_layer=nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
    )
    return {"stem": stem}


def _stage(inputs: int, inner: int, frames: tuple[int, ...], stage: int) -> dict[str, nn.Module]:
    """Make the blocks of a pathway's stage; the first halves the sides, but for the first stage."""
    blocks: dict[str, nn.Module] = {}
    for i in range(DEPTHS[stage]):
        stride = 2 if stage and not i else 1
        span = frames[i % len(frames)]
        inside = bottleneck(inputs, inner, 4 * inner, span, stride)
        blocks[f"res{i}"] = ResidualBlock(inside, inputs, 4 * inner, stride)
        inputs = 4 * inner
    return blocks


@MODEL_REGISTRY.register()
def slowfast_r50(cfg: CfgNode) -> ResNet3d:
    """SlowFast R50 (arXiv 1812.03982), alpha 4, beta 1/8: "8×8" takes 32 frames at rate 2."""
    return from_cfg(cfg, partial(ResNet3d, (SLOW, FAST)))


@MODEL_REGISTRY.register()
def slow_r50(cfg: CfgNode) -> ResNet3d:
    """Slow R50: the slow pathway of SlowFast alone (arXiv 1812.03982, §4)."""
    return from_cfg(cfg, partial(ResNet3d, (SLOW,)))


@MODEL_REGISTRY.register()
def i3d_r50(cfg: CfgNode) -> ResNet3d:
    """I3D as a ResNet-50 (arXiv 1711.07971, §4), kernels of 3 frames in every other block."""
    return from_cfg(cfg, partial(ResNet3d, (I3D,), halve_time=True))
