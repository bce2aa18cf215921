"""What models to compare with have in common: a head by name, another head, checks of the clip."""

from __future__ import annotations

from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.models.base import VideoModel
from timesformer.models.network.input import check_clips
from timesformer.utils.errors import ConfigError


class Classifier(VideoModel):
    """A model that knows its head by name, and takes another."""

    classifier_name: ClassVar[str]
    num_features: int
    least_frames: ClassVar[int] = 1
    least_side: ClassVar[int] = 1
    knobs = frozenset({"model", "num_classes", "num_frames", "img_size"})

    def get_classifier(self) -> nn.Module:
        """Return the last layer, from features to K logits."""
        return self.get_submodule(self.classifier_name)

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W), normalised as the weights expect -> logits (B, K).

        Raises:
            ValueError: it isn't that; see `check_clips`.
        """
        check_clips(x, least_frames=self.least_frames, least_side=self.least_side)
        logits: Tensor = super().forward(x)  # of the class that this one stands before
        return logits

    def _reset_head(self, num_classes: int) -> None:
        self.num_classes = num_classes
        head = self._make_head(num_classes) if num_classes > 0 else nn.Identity()
        self.set_submodule(self.classifier_name, head)

    def _make_head(self, num_classes: int) -> nn.Module:
        head = nn.Linear(self.num_features, num_classes)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head


def check_cfg(cfg: CfgNode, frames: int = 1, side: int = 1) -> None:
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


def classes(cfg: CfgNode) -> int:
    """Return MODEL.NUM_CLASSES; 1 for none, which torchvision can't: `make_model` removes it."""
    return max(1, cfg.MODEL.NUM_CLASSES)
