"""Everything a training run needs to go on, and where its weights come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.clips.augment import ClipAugment
from timesformer.clips.preprocessing import KEYS, Preprocessing
from timesformer.config.validate import SCRATCH_OVERWRITTEN, BatchLayout
from timesformer.datasets.build import build_preprocessing
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.losses import ClipMixup
from timesformer.models.weights.load import LoadReport, load_pretrained
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import (
    bare,
    get_last_checkpoint,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from timesformer.utils.distributed import barrier, is_main
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass
class TrainState:
    """A training run.

    Attributes:
        cfg: its configuration.
        device: where the model lives.
        layout: how the global batch is split over ranks and forward passes.
        model: the model, DDP-wrapped with several ranks.
        optimizer: its optimizer.
        scaler: loss scaling; does nothing unless TRAIN.AMP is fp16.
        loss: (logits (B, K), targets) -> scalar.
        augment: makes of a batch's pixels what the model takes.
        mixup: mixes clips and labels of a batch, or None.
        broken: the training videos that couldn't be read.
        class_names: class names in label order, or ().
        epoch: the next epoch to train, counted from 0.
    """

    cfg: CfgNode
    device: torch.device
    layout: BatchLayout
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: nn.Module
    augment: ClipAugment
    mixup: ClipMixup | None
    broken: BrokenVideos
    class_names: Sequence[str] = ()
    epoch: int = 0


def preprocessing(cfg: CfgNode) -> dict[str, Any]:
    """Return what the weights expect of their input; it travels with every checkpoint."""
    return build_preprocessing(cfg).to_json()


def load_train_checkpoint(
    cfg: CfgNode,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Give a run its weights: those it left behind, else the start that the config asks for.

    The order is: the newest sound checkpoint in OUTPUT_DIR (TRAIN.AUTO_RESUME), then
    TRAIN.CHECKPOINT_FILE_PATH, then TIMESFORMER.PRETRAINED_MODEL, then fresh weights.

    Returns:
        The epoch to go on with, counted from 0.

    Raises:
        WeightsError: if weights can't be read or don't belong to this model.
    """
    last = get_last_checkpoint(cfg.OUTPUT_DIR) if cfg.TRAIN.AUTO_RESUME else None
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH
    only_weights = cfg.TRAIN.FINETUNE or cfg.TRAIN.CHECKPOINT_EPOCH_RESET
    if last or (source and not only_weights):
        path = last or source
        epoch = load_checkpoint(path, model, optimizer) + 1
        if scaler and scaler.is_enabled():
            scaler.load_state_dict(read_checkpoint(path)["scaler_state"])
        logger.info("resuming from %s: %d epochs are done", path, epoch)
        return epoch
    if cfg.TRAIN.FINETUNE and not source:
        logger.warning(
            "TRAIN.FINETUNE True, but TRAIN.CHECKPOINT_FILE_PATH names no model to fine-tune: "
            "training starts as without it"
        )
    if source := source or cfg.TIMESFORMER.PRETRAINED_MODEL:
        report = load_pretrained(bare(model), source, **_resizing(cfg))
        if cfg.TIMESFORMER.INIT == "scratch" and (report.copied or report.zeroed):
            raise ConfigError(SCRATCH_OVERWRITTEN)
    else:
        logger.info("training from fresh weights (TIMESFORMER.INIT %s)", cfg.TIMESFORMER.INIT)
    return 0


def _resizing(cfg: CfgNode) -> dict[str, str]:
    """How weights of other sizes are fitted: arguments of `load_pretrained`."""
    return {
        "pos_embed_resize": cfg.TIMESFORMER.POS_EMBED_RESIZE,
        "time_embed_resize": cfg.TIMESFORMER.TIME_EMBED_RESIZE,
        "tubelet_init": cfg.TIMESFORMER.TUBELET_INIT,
    }


def save(state: TrainState, epoch: int) -> None:
    """Write the checkpoint of a finished epoch (counted from 0); all ranks wait for it."""
    if is_main():
        model: Any = bare(state.model)
        path = save_checkpoint(
            state.cfg.OUTPUT_DIR,
            model,
            state.optimizer,
            epoch,
            state.cfg,
            scaler_state=state.scaler.state_dict(),
            architecture=model.architecture.to_json(),
            preprocessing=preprocessing(state.cfg),
            class_names=list(state.class_names),
        )
        logger.info("wrote %s", path)
    barrier()


class TestWeights(NamedTuple):
    """The weights that are tested."""

    path: str
    class_names: tuple[str, ...]  # as in training, or ()


def load_test_checkpoint(cfg: CfgNode, model: nn.Module) -> TestWeights:
    """Load the weights to test.

    They are TEST.CHECKPOINT_FILE_PATH, else the newest sound checkpoint in OUTPUT_DIR, else
    TRAIN.CHECKPOINT_FILE_PATH. Nothing is ever tested with weights that training didn't make.

    Raises:
        WeightsError: if there are none, or they don't give every weight of the model.
    """
    path = (
        cfg.TEST.CHECKPOINT_FILE_PATH
        or get_last_checkpoint(cfg.OUTPUT_DIR)
        or cfg.TRAIN.CHECKPOINT_FILE_PATH
    )
    if not path:
        raise WeightsError(
            f"nothing to test: {cfg.OUTPUT_DIR} holds no checkpoint; set "
            "TEST.CHECKPOINT_FILE_PATH to one, or train first (TRAIN.ENABLE True)"
        )
    source = read_weights(path)
    _compare_preprocessing(cfg, path, source.get("preprocessing"))
    class_names = tuple(map(str, source.get("class_names") or ()))
    report: LoadReport = load_pretrained(
        bare(model),
        source,
        **_resizing(cfg),
        name=str(path),
    )
    invented = [*report.missing, *report.copied, *report.zeroed]
    invented += [name for name in report.resized if name.startswith("patch_embed")]
    if invented:
        raise WeightsError(
            f"{path}: not a checkpoint of this model: it lacks {len(invented)} weights "
            f"({', '.join(invented[:5])}, …); check TIMESFORMER.ATTENTION_TYPE and "
            "MODEL.NUM_CLASSES, or train first"
        )
    logger.info("testing %s", path)
    return TestWeights(str(path), class_names)


def _compare_preprocessing(cfg: CfgNode, path: str | Path, trained: Any) -> None:
    if not trained:
        return
    try:
        said = Preprocessing.from_json(trained)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    for name, (theirs, ours) in said.differences(build_preprocessing(cfg, "test")).items():
        logger.warning(
            "%s was trained with %s %s, but the config says %s: set %s as in training, or scores "
            "will be too low",
            *(path, name, theirs, ours, KEYS[name]),
        )
