"""Training losses, and mixup of clips; both are timm's or torch's."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from timesformer.utils.errors import ConfigError


def build_loss(cfg: CfgNode) -> nn.Module:
    """(logits (B, K), targets) -> scalar.

    Targets are (B,) classes, or (B, K): shares after mixup, zeros and ones for bce.

    Raises:
        ConfigError: for an unknown MODEL.LOSS_FUNC.
    """
    if cfg.MODEL.LOSS_FUNC == "bce":
        return nn.BCEWithLogitsLoss()
    if cfg.MODEL.LOSS_FUNC != "cross_entropy":
        raise ConfigError(f"MODEL.LOSS_FUNC {cfg.MODEL.LOSS_FUNC!r}: choose cross_entropy or bce")
    if cfg.MIXUP.ENABLED:
        return SoftTargetCrossEntropy()  # Mixup itself smooths the labels
    return nn.CrossEntropyLoss(label_smoothing=cfg.SOLVER.LABEL_SMOOTHING)


class ClipMixup:
    """timm's Mixup for clips; CutMix pastes one box into all frames of a clip.

    timm draws from numpy's global generator, which training seeds before every step.

    Args:
        mixup: works on images (B, C, H, W).
    """

    def __init__(self, mixup: Mixup) -> None:
        self.mixup = mixup

    def __call__(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, H, W) and labels (B,) -> mixed clips and soft targets (B, K)."""
        # Frames as channels: timm takes the last but one of four dimensions for the height.
        images, targets = self.mixup(clips.flatten(1, 2), labels)
        return images.unflatten(1, clips.shape[1:3]), targets


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
