"""What 3D residual networks have in common: pathways of blocks, and a head that is a convolution.

Weights have PySlowFast's names (github.com/facebookresearch/SlowFast, Apache-2.0), so that its
checkpoints load as they are; the code is our own.

Shape letters: B batch, C channels, T frames, H×W pixels, t×h×w what is left of them, K classes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.models.architecture import Architecture
from timesformer.models.attention.dropping import Dropout
from timesformer.models.others.classifier import Classifier, check_cfg
from timesformer.utils.errors import ConfigError

Window = tuple[int, int, int]


def conv(
    inputs: int, outputs: int, kernel: Window, stride: Window = (1, 1, 1), groups: int = 1
) -> nn.Conv3d:
    """Make a convolution (t×h×w) without bias whose output is as large as its input / stride."""
    padding = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


class Pathways(nn.Module):
    """Modules in a row for each pathway, each under a name of its own: pathway0_res0, ….

    Args:
        pathways: of every pathway, its modules by name, in their order.
    """

    def __init__(self, pathways: Sequence[Mapping[str, nn.Module]]) -> None:
        super().__init__()
        self._names: list[list[str]] = []
        for i, modules in enumerate(pathways):
            self._names.append([f"pathway{i}_{name}" for name in modules])
            for name, module in zip(self._names[-1], modules.values(), strict=True):
                self.add_module(name, module)

    def forward(self, pathways: Sequence[Tensor]) -> list[Tensor]:
        """(B, C, t, h, w) of each pathway -> the same, after its modules."""
        outputs = []
        for x, names in zip(pathways, self._names, strict=True):
            for name in names:
                x = getattr(self, name)(x)
            outputs.append(x)
        return outputs


class ResidualBlock(nn.Module):
    """A branch beside a shortcut (arXiv 1512.03385), which is a convolution if shapes differ.

    Args:
        branch: from `inputs` to `outputs` channels, with this stride; ends in a BatchNorm called
            c_bn, which starts at zero, so that the block starts as its shortcut.
        inputs: channels.
        outputs: channels.
        stride: in space.
    """

    def __init__(self, branch: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch1: nn.Conv3d | None = None
        self.branch1_bn: nn.BatchNorm3d | None = None
        if inputs != outputs or stride != 1:
            self.branch1 = conv(inputs, outputs, (1, 1, 1), (1, stride, stride))
            self.branch1_bn = nn.BatchNorm3d(outputs)
        self.branch2 = branch

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, t, h, w) -> (B, C', t, h / stride, w / stride)."""
        shortcut = x
        if self.branch1 is not None and self.branch1_bn is not None:
            shortcut = self.branch1_bn(self.branch1(x))
        return F.relu(shortcut + self.branch2(x))


def bottleneck(inputs: int, inner: int, outputs: int, frames: int, stride: int) -> nn.Sequential:
    """Make the branch of a ResNet's block: (t×1×1), (1×3×3), (1×1×1), each with BatchNorm.

    Args:
        inputs: channels.
        inner: channels of the middle.
        outputs: channels.
        frames: extent t of the first kernel.
        stride: in space, of the middle, as in torchvision's ResNet.
    """
    return branch(
        inner,
        a=conv(inputs, inner, (frames, 1, 1)),
        b=conv(inner, inner, (1, 3, 3), (1, stride, stride)),
        c=conv(inner, outputs, (1, 1, 1)),
        after_b=OrderedDict(b_relu=nn.ReLU(inplace=True)),
    )


def branch(
    inner: int, a: nn.Conv3d, b: nn.Conv3d, c: nn.Conv3d, after_b: Mapping[str, nn.Module]
) -> nn.Sequential:
    """Put three convolutions in a row, each with BatchNorm; the third has no activation."""
    return nn.Sequential(
        OrderedDict(
            a=a,
            a_bn=nn.BatchNorm3d(inner),
            a_relu=nn.ReLU(inplace=True),
            b=b,
            b_bn=nn.BatchNorm3d(inner),
            **after_b,
            c=c,
            c_bn=nn.BatchNorm3d(c.out_channels),
        )
    )


class ConvolutionalHead(nn.Module):
    """Average over time and a window of the trained size, then a linear layer at every position.

    Frames of the trained size have one position. Of larger ones the head looks at all of them, as
    PySlowFast tests (256² with what was trained on 224²): its score of a class is the mean of the
    positions' softmax, and so is the softmax of what is returned here. Smaller ones shrink the
    window.

    Args:
        img_size: trained frame side in pixels, or (H, W), which the network halves five times.
        dropout: share of the features that is dropped in training.
    """

    def __init__(self, img_size: int | tuple[int, int], dropout: float = 0.5) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.window = -(-height // 32), -(-width // 32)
        self.dropout = Dropout(dropout)
        self.projection: nn.Module = nn.Identity()

    def pool(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, C, t, h, w) of each pathway -> features (B, positions, C) of all."""
        frames = torch.cat([x.mean(dim=2) for x in maps], dim=1)
        kernel = [min(k, size) for k, size in zip(self.window, frames.shape[2:], strict=True)]
        return F.avg_pool2d(frames, kernel, stride=1).flatten(2).transpose(1, 2)

    def forward(self, maps: Sequence[Tensor], pre_logits: bool = False) -> Tensor:
        """(B, C, t, h, w) of each pathway -> logits (B, K), or features (B, C) if asked."""
        features = self.pool(maps)
        if pre_logits or isinstance(self.projection, nn.Identity):
            return features.mean(dim=1)
        logits = self.projection(self.dropout(features))
        if logits.shape[1] == 1:
            return logits[:, 0]
        scores = logits.log_softmax(dim=-1)
        return scores.logsumexp(dim=1) - math.log(logits.shape[1])


class ResidualNetwork(Classifier):
    """A network of stages that ends in a `ConvolutionalHead`. Clips of other sizes work too."""

    classifier_name = "head.projection"
    head: ConvolutionalHead

    def _make_head(self, num_classes: int) -> nn.Module:
        head = nn.Linear(self.num_features, num_classes)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        return head

    @abstractmethod
    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Clip (B, 3, T, H, W) -> features (B, C, t, H/32, W/32) of each pathway."""

    def forward_head(self, features: list[Tensor], pre_logits: bool = False) -> Tensor:
        """Features of `forward_features` -> logits (B, K), or what the last layer would see."""
        logits: Tensor = self.head(features, pre_logits)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W), normalised as the weights expect -> logits (B, K)."""
        return self.forward_head(self.forward_features(x))


Network = TypeVar("Network", bound=ResidualNetwork)


def from_cfg(cfg: CfgNode, network: Callable[..., Network]) -> Network:
    """Make a network that can do what the config says.

    Args:
        cfg: the config.
        network: makes it, with the knobs that its signature names.

    Raises:
        ConfigError: the clips are too short, or see `check_positions`.
        ValueError: the network can't be of these sizes.
    """
    model = network(**Architecture.from_cfg(cfg).arguments_for(network))
    check_cfg(cfg, model.least_frames)
    check_positions(cfg)
    return model


def check_positions(cfg: CfgNode) -> None:
    """Make sure that scores of several positions are averaged for one label, as they are meant.

    Raises:
        ConfigError: test crops have several, and the videos several labels.
    """
    crops = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE
    if cfg.MODEL.LOSS_FUNC == "bce" and -(-crops[1] // 32) > -(-crops[0] // 32):
        raise ConfigError(
            f"DATA.TEST_CROP_SIZE {crops[1]}: {cfg.MODEL.MODEL_NAME} averages softmax scores over "
            f"crops larger than the trained ones, and MODEL.LOSS_FUNC bce has none: test at "
            f"DATA.TRAIN_CROP_SIZE {crops[0]}"
        )


@torch.no_grad()
def start_fresh(model: nn.Module) -> None:
    """Start weights as PySlowFast does: He et al.'s normal, blocks as their shortcuts."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d) and name.endswith(".c_bn"):
            nn.init.zeros_(module.weight)
