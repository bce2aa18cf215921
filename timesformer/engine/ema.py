"""The exponential moving average of a model's weights under way (EMA.ENABLED): timm's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from timm.utils import ModelEmaV3
from torch import nn

from timesformer.utils.checkpoint import bare, differences
from timesformer.utils.errors import WeightsError
from timesformer.utils.logging import get_logger
from timesformer.utils.tensors import check_tensors

logger = get_logger(__name__)

PREFIX = "ema_"
"""Begins the names of what the average does in validation."""


class Ema:
    """A second model of the same size, which follows the first one.

    It is a function of the weights after each step, so all ranks hold the same, and it is on the
    model's device.

    Args:
        cfg: reads EMA.DECAY, EMA.WARMUP and TEST.WEIGHTS.
        model: what it follows, wrapped or not.

    Attributes:
        average: timm's, whose `module` is the model.
        updates: steps that it has followed.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        self.warmup = cfg.EMA.WARMUP
        self.tested = cfg.TEST.WEIGHTS
        self.average = ModelEmaV3(bare(model), decay=cfg.EMA.DECAY, use_warmup=self.warmup)
        self.average.requires_grad_(False)
        self.updates = 0

    @property
    def module(self) -> nn.Module:
        """The model with the averaged weights, in evaluation mode."""
        return self.average.module

    def start_from(self, model: nn.Module) -> None:
        """Begin again at a model's weights."""
        self.average.set(bare(model))
        self.updates = 0

    def update(self, model: nn.Module) -> None:
        """Follow a model by the step that it has made."""
        self.updates += 1
        self.average.update(bare(model), self.updates if self.warmup else None)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it, and which weights are the ones to use."""
        return {
            "ema_state": self.module.state_dict(),
            "ema_updates": self.updates,
            "use_weights": self.tested,
        }

    def restore(self, path: Path, content: Mapping[str, Any], model: nn.Module) -> None:
        """Go on with the average in a checkpoint; without one, begin at a model's weights.

        Raises:
            WeightsError: it is of another model, or damaged; nothing is changed.
        """
        saved, updates = content.get("ema_state"), content.get("ema_updates")
        if saved is None:
            logger.info("%s has no moving average: it begins with the weights there", path)
            self.start_from(model)
            return
        if not isinstance(saved, dict) or type(updates) is not int or updates < 0:
            raise WeightsError(f"{path}: its ema_state isn't a moving average of weights")
        if differing := differences(self.module.state_dict(), saved):
            raise WeightsError(f"{path}: its ema_state is of another model: {differing[0]}")
        check_tensors(path, saved)
        self.module.load_state_dict(saved)
        self.updates = updates
