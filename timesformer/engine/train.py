"""Training, in the order it runs: environment, build, restore, loop."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.config.validate import batch_layout
from timesformer.datasets.build import build_augment
from timesformer.datasets.loader import Batch, VideoLoader, construct_loader
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.evaluate import autocast, eval_epoch
from timesformer.engine.losses import build_loss, build_mixup
from timesformer.engine.optimizer import construct_optimizer, set_lr
from timesformer.engine.state import TrainState, load_train_checkpoint, save
from timesformer.models.build import build_model, label
from timesformer.utils.checkpoint import is_checkpoint_epoch
from timesformer.utils.distributed import all_reduce_sum, device_for, get_world
from timesformer.utils.errors import TrainingError
from timesformer.utils.logging import get_logger, log_json_stats, progress, setup_logging
from timesformer.utils.lr_policy import get_lr_at_epoch
from timesformer.utils.meters import TrainMeter
from timesformer.utils.metrics import topk_correct
from timesformer.utils.misc import seed_all
from timesformer.visualization.tensorboard import TensorboardWriter

logger = get_logger(__name__)


def train(cfg: CfgNode) -> nn.Module:
    """Train as the config says, from where a former run left off, and return the model.

    Raises:
        ConfigError: for a batch layout or model that can't be.
        WeightsError: if the weights to start from can't be read or don't fit.
        AnnotationError: if a list is malformed, or too many videos can't be read.
        VideoError: if a video can't be read, and no other in its place.
        TrainingError: if the loss is not finite.
    """
    setup_logging(cfg.OUTPUT_DIR)
    world = get_world()
    layout = batch_layout(cfg, world.local_size, world.size // world.local_size)
    seed_all(cfg.RNG_SEED)

    train_loader = construct_loader(cfg, "train")
    val_loader = construct_loader(cfg, "val") if cfg.TRAIN.EVAL_PERIOD else None
    model = build_model(cfg)
    state = TrainState(
        cfg=cfg,
        device=device_for(cfg),
        layout=layout,
        model=model,
        optimizer=construct_optimizer(model, cfg),
        scaler=torch.amp.GradScaler(device_for(cfg).type, enabled=cfg.TRAIN.AMP == "fp16"),
        loss=build_loss(cfg),
        mixup=build_mixup(cfg),
        augment=build_augment(cfg),
        broken=BrokenVideos(
            cfg.OUTPUT_DIR, "train", len(train_loader.dataset), cfg.DATA.MAX_FAILED
        ),
        class_names=train_loader.dataset.class_names,
    )
    state.epoch = load_train_checkpoint(cfg, model, state.optimizer, state.scaler)
    log_start(state, train_loader)

    val_broken = BrokenVideos(cfg.OUTPUT_DIR, "val", len(val_loader.dataset) if val_loader else 0)
    tensorboard = None
    if cfg.TENSORBOARD.ENABLE:
        log_dir = cfg.TENSORBOARD.LOG_DIR or str(Path(cfg.OUTPUT_DIR) / "tensorboard")
        tensorboard = TensorboardWriter(log_dir)
    for epoch in range(state.epoch, cfg.SOLVER.MAX_EPOCH):
        last = epoch + 1 == cfg.SOLVER.MAX_EPOCH
        stats = train_epoch(state, train_loader, epoch, tensorboard)
        log_json_stats(stats, cfg.OUTPUT_DIR)
        if last or is_checkpoint_epoch(cfg, epoch):
            save(state, epoch)
        if val_loader and (last or (epoch + 1) % cfg.TRAIN.EVAL_PERIOD == 0):
            val = eval_epoch(cfg, model, val_loader, epoch, val_broken)
            if tensorboard:
                names = ("map",) if cfg.DATA.MULTI_LABEL else ("top1_acc", "top5_acc")
                names = (*names, "loss")
                tensorboard.add_scalars({f"val/{n}": val[n] for n in names}, epoch + 1)
    if tensorboard:
        tensorboard.close()
    return model


def log_start(state: TrainState, loader: VideoLoader) -> None:
    """Say what is about to run: model, data and how the global batch is made."""
    cfg, layout = state.cfg, state.layout
    if cfg.LOG_MODEL_INFO:
        logger.info("%s", state.model)
    stats = {
        "split": "start",
        "model": label(cfg),
        "params": sum(p.numel() for p in state.model.parameters()),
        "train_videos": len(loader.dataset),
        "device": str(state.device),
        "global_batch": layout.global_batch,
        "ranks": layout.ranks,
        "clips_per_rank": layout.per_rank,
        "accumulation": layout.accumulation,
        "first_epoch": state.epoch + 1,
    }
    logger.info(
        "global batch %d = %d ranks × %d clips × %d forward passes",
        layout.global_batch, layout.ranks, layout.per_rank, layout.accumulation,
    )  # fmt: skip
    log_json_stats(stats, cfg.OUTPUT_DIR)


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches, one a step; the last may be shorter, never empty."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def train_epoch(
    state: TrainState,
    loader: VideoLoader,
    epoch: int,
    tensorboard: TensorboardWriter | None = None,
) -> dict[str, object]:
    """One pass over the training set; returns the epoch's statistics."""
    cfg = state.cfg
    loader.set_epoch(epoch)
    state.model.train()
    steps = math.ceil(len(loader) / state.layout.accumulation)
    meter = TrainMeter(epoch, cfg.SOLVER.MAX_EPOCH, steps)
    groups = in_groups(loader, state.layout.accumulation)
    for step, group in enumerate(progress(groups, desc=f"epoch {epoch + 1}", total=steps)):
        meter.data_ready()
        lr = get_lr_at_epoch(cfg, epoch + step / steps)
        set_lr(state.optimizer, lr)
        # Seeded by the step, DropPath and mixup need no saved generator state to resume.
        seed_all(cfg.RNG_SEED, epoch, step, get_world().rank)
        for batch in group:
            state.broken.add(batch[3]["problems"])
        meter.update(train_step(state, group, epoch, f"epoch {epoch + 1}, step {step + 1}"), lr)
        if (step + 1) % cfg.LOG_PERIOD == 0 or step + 1 == steps:
            stats = meter.iter_stats(step)
            log_json_stats(stats, cfg.OUTPUT_DIR)
            if tensorboard:
                names = ("loss", "lr", "top1_err", "top5_err", "dt", "dt_data")
                tensorboard.add_scalars(
                    {f"train/{n}": float(stats[n]) for n in names}, epoch * steps + step + 1
                )
    state.broken.gather()
    return meter.epoch_stats() | {"replaced_videos": len(state.broken.failed)}


def train_step(state: TrainState, group: Sequence[Batch], epoch: int, where: str) -> list[float]:
    """One optimizer step on a group of batches, whose gradients are averaged.

    Args:
        state: the run.
        group: batches of this rank.
        epoch: from 0; a key of the augmentation.
        where: epoch and step, for the error message.

    Returns:
        Over all ranks: summed loss, number of clips wrong at top-1, at top-5, number of clips.

    Raises:
        TrainingError: if the loss is not finite; weights are as they were before the step.
    """
    state.optimizer.zero_grad(set_to_none=True)
    totals = torch.zeros(4, dtype=torch.float64 if state.device.type == "cpu" else torch.float32)
    totals = totals.to(state.device)
    for i, (pixels, labels, index, meta) in enumerate(group):
        pixels = pixels.to(state.device, non_blocking=True)
        inputs = state.augment(pixels, index, meta["view"], epoch)
        labels = labels.to(state.device, non_blocking=True)
        targets = labels
        if state.mixup:
            inputs, targets = state.mixup(inputs, labels)
        with _sync_gradients(state.model, i + 1 == len(group)):
            with autocast(state.device, state.cfg.TRAIN.AMP):
                logits = state.model(inputs).float()
                loss = state.loss(logits, targets)
            state.scaler.scale(loss / len(group)).backward()
        totals += _totals(loss.detach(), logits.detach(), labels)
    # Every rank sees the same sum, so all of them stop, or none.
    sums = all_reduce_sum(totals).tolist()
    if not math.isfinite(sums[0]):
        ids = [i for batch in group for i in batch[2].tolist()]
        raise TrainingError(
            f"loss is not finite in {where} (this rank's videos: rows {ids} of the training list); "
            "lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_EPOCHS, set SOLVER.CLIP_GRAD_L2NORM, "
            "or look at these videos"
        )
    if state.cfg.SOLVER.CLIP_GRAD_L2NORM > 0:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), state.cfg.SOLVER.CLIP_GRAD_L2NORM)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return sums


def _sync_gradients(model: nn.Module, sync: bool) -> contextlib.AbstractContextManager:
    """Ranks exchange gradients in the last forward pass of a step only."""
    if sync or not isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()


def _totals(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    count = len(labels)
    right = topk_correct(logits, labels, (1, 5))
    wrong = torch.tensor([count - n for n in right], device=loss.device)
    return torch.cat([loss[None] * count, wrong, wrong.new_tensor([count])])
