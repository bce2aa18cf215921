"""Training losses, and mixup of clips; both are timm's or torch's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from fvcore.common.config import CfgNode
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from timesformer.utils.errors import ConfigError


def build_loss(cfg: CfgNode, counts: npt.ArrayLike | None = None) -> nn.Module:
    """(logits (B, K), targets) -> scalar.

    Targets are (B,) classes, or (B, K): shares after mixup, zeros and ones for bce.

    Args:
        cfg: reads MODEL.LOSS_FUNC, MODEL.CLASS_WEIGHTS, MIXUP.ENABLED and SOLVER.LABEL_SMOOTHING.
        counts: training videos of each class (K,), which MODEL.CLASS_WEIGHTS above 0 needs.

    Raises:
        ConfigError: for an unknown MODEL.LOSS_FUNC.
    """
    weights = None
    if cfg.MODEL.CLASS_WEIGHTS:
        if counts is None:
            raise ValueError("MODEL.CLASS_WEIGHTS needs the number of videos of each class")
        weights = class_weights(counts, cfg.MODEL.CLASS_WEIGHTS)
    if cfg.MODEL.LOSS_FUNC == "bce":
        return nn.BCEWithLogitsLoss(pos_weight=weights)
    if cfg.MODEL.LOSS_FUNC != "cross_entropy":
        raise ConfigError(f"MODEL.LOSS_FUNC {cfg.MODEL.LOSS_FUNC!r}: choose cross_entropy or bce")
    smoothing = 0.0 if cfg.MIXUP.ENABLED else cfg.SOLVER.LABEL_SMOOTHING  # Mixup itself smooths
    if weights is not None:
        return WeightedCrossEntropy(weights, smoothing)
    if cfg.MIXUP.ENABLED:
        return SoftTargetCrossEntropy()
    return nn.CrossEntropyLoss(label_smoothing=smoothing)


def class_weights(counts: npt.ArrayLike, power: float) -> Tensor:
    """Return weights of classes (K,) in proportion to n^-power, 1 in the mean over all labels.

    With power 1 they are N / (K n), which scikit-learn calls balanced; K counts the classes that
    have videos. The others have weight 1.

    Args:
        counts: videos of each class (K,).
        power: 0 weighs all alike.
    """
    n = np.asarray(counts, float)
    there = n > 0
    weights = np.ones_like(n)
    weights[there] = n[there] ** -power
    weights[there] *= n.sum() / (n * weights).sum()
    return torch.from_numpy(weights).float()


class WeightedCrossEntropy(nn.Module):
    """The mean over clips of -Σ w_c t_c log p_c, for shares t of the classes in a clip's target.

    torch's own mean for (B,) targets divides by the batch's weights instead of by B. What a clip
    counts would depend on its micro-batch then, and a step on how it is accumulated.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, label_smoothing: float = 0.0) -> None:
        """Make the loss.

        Args:
            weights: of the classes (K,).
            label_smoothing: share of (B,) targets that is spread over all classes.
        """
        super().__init__()
        self.register_buffer("weights", weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K) and targets, (B,) classes or (B, K) shares -> scalar."""
        smoothing = self.label_smoothing if targets.dim() == 1 else 0.0
        total = nn.functional.cross_entropy(
            logits, targets, self.weights, reduction="sum", label_smoothing=smoothing
        )
        return total / len(logits)


class ClipMixup:
    """timm's Mixup for clips; CutMix pastes one box into all frames of a clip.

    timm draws from numpy's global generator, which training seeds alike before every forward pass
    of a step, so one draw holds for the step's whole batch. It mixes a batch with itself turned
    round; here clips are mixed in pairs, the first with the second and so on, which stay together
    however a larger batch is split.

    Args:
        mixup: works on images (B, C, H, W).
    """

    def __init__(self, mixup: Mixup) -> None:
        self.mixup = mixup

    def __call__(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, H, W) and labels (B,) -> mixed clips and soft targets (B, K)."""
        n = len(clips)
        # 0 2 4 … 5 3 1: turned round, 0 comes upon 1, and 2 upon 3.
        order = torch.tensor([*range(0, n, 2), *range(1, n, 2)[::-1]])
        order = order.to(clips.device, non_blocking=True)
        back = order.argsort()
        # Frames as channels: timm takes the last but one of four dimensions for the height.
        images, targets = self.mixup(clips[order].flatten(1, 2), labels[order])
        return images[back].unflatten(1, clips.shape[1:3]), targets[back]


def build_mixup(cfg: CfgNode) -> ClipMixup | None:
    """Return the mixing that MIXUP.* asks for, or None."""
    if not cfg.MIXUP.ENABLED:
        return None
    return ClipMixup(
        Mixup(
            mixup_alpha=cfg.MIXUP.ALPHA,
            cutmix_alpha=cfg.MIXUP.CUTMIX_ALPHA,
            prob=cfg.MIXUP.PROB,
            switch_prob=cfg.MIXUP.SWITCH_PROB,
            label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
            num_classes=cfg.MODEL.NUM_CLASSES,
        )
    )
