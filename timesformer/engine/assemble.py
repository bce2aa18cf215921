"""What a training run is made of, put together from its config: to train, or to measure a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.config.layout import BatchLayout
from timesformer.datasets.build import build_augment
from timesformer.datasets.lists.records import Record
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.ema import Ema
from timesformer.engine.interruption import Interruption
from timesformer.engine.losses import build_loss, build_mixup
from timesformer.engine.nonfinite import NonFinite
from timesformer.engine.optimizer import construct_optimizer
from timesformer.engine.saving import Saver
from timesformer.engine.state import TrainState
from timesformer.engine.tubes import TubeChoice
from timesformer.utils.distributed import device_for


def make_state(
    cfg: CfgNode,
    layout: BatchLayout,
    model: nn.Module,
    records: Sequence[Record],
    counts: npt.ArrayLike | None = None,
    **more: Any,
) -> TrainState:
    """Return the state of a run that hasn't begun, with all that its steps need.

    Args:
        cfg: the config.
        layout: how the global batch is split.
        model: the model on its device, wrapped if several processes train it.
        records: the training videos, whose index a batch has.
        counts: of them in each class (K,); None if no class weighs more for its rarity.
        **more: further attributes of `TrainState`.
    """
    device, interruption = device_for(cfg), Interruption(cfg)
    return TrainState(
        cfg=cfg,
        device=device,
        layout=layout,
        model=model,
        optimizer=construct_optimizer(model, cfg),
        scaler=torch.amp.GradScaler(device.type, enabled=cfg.TRAIN.AMP == "fp16"),
        loss=build_loss(cfg, counts).to(device),
        mixup=build_mixup(cfg),
        ema=Ema(cfg, model) if cfg.EMA.ENABLED else None,
        augment=build_augment(cfg),
        tubes=TubeChoice(cfg, model),
        broken=BrokenVideos(cfg.OUTPUT_DIR, "train", len(records), cfg.DATA.MAX_FAILED),
        interruption=interruption,
        saver=Saver(cfg, interruption),
        nonfinite=NonFinite(
            cfg.TRAIN.NONFINITE,
            records,
            "the training list's DATA.FRACTION" if cfg.DATA.FRACTION < 1 else "the training list",
        ),
        **more,
    )
