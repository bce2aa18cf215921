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
from timesformer.datasets.lists.consistency import doubts
from timesformer.datasets.loader import Batch, VideoLoader, construct_loader, worker_errors
from timesformer.engine.best import Best, logged_validation
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.evaluate import autocast, eval_epoch
from timesformer.engine.losses import build_loss, build_mixup
from timesformer.engine.optimizer import construct_optimizer, set_lr
from timesformer.engine.resume import list_digest
from timesformer.engine.scope import run_scope
from timesformer.engine.start import begin
from timesformer.engine.state import TrainState, check_finite, save
from timesformer.models.build import build_model, label, meta_model, view_shape
from timesformer.models.profiling import cost_table
from timesformer.utils.checkpoint import is_checkpoint_epoch, set_aside_checkpoints
from timesformer.utils.distributed import (
    all_reduce_sum,
    device_for,
    get_world,
    is_main,
    same_everywhere,
    together,
)
from timesformer.utils.errors import TrainingError
from timesformer.utils.logging import get_logger, log_json_stats, progress
from timesformer.utils.lr_policy import get_lr_at_epoch
from timesformer.utils.meters import TrainMeter
from timesformer.utils.metrics import topk_correct
from timesformer.utils.rng import seed_all
from timesformer.visualization.tensorboard import TensorboardWriter

logger = get_logger(__name__)

# fp16 halves its scale of the loss where a gradient overflows; one that overflows even so is wrong.
LEAST_LOSS_SCALE = 1.0


def train(cfg: CfgNode) -> nn.Module:
    """Train as the config says, from where a former run left off, and return the model.

    Raises:
        ConfigError: for a batch layout or model that can't be, or that a run can't go on with.
        WeightsError: if the weights to start from can't be read or don't fit.
        AnnotationError: if a list is malformed, or too many videos can't be read.
        VideoError: if a video can't be read, and no other in its place.
        TrainingError: if the loss, a gradient or a weight is not finite.
    """
    with run_scope(cfg):
        return _train(cfg)


def _train(cfg: CfgNode) -> nn.Module:
    world = get_world()
    layout = batch_layout(cfg, world.local_size, world.size // world.local_size)
    seed_all("init", cfg.RNG_SEED)

    train_loader = together(lambda: construct_loader(cfg, "train"))
    val_loader = together(lambda: construct_loader(cfg, "val")) if cfg.TRAIN.EVAL_PERIOD else None
    model = build_model(cfg)
    dataset = train_loader.dataset
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
        broken=BrokenVideos(cfg.OUTPUT_DIR, "train", len(dataset), cfg.DATA.MAX_FAILED),
        class_names=dataset.class_names,
        train_list=list_digest(dataset.records),
    )
    same_everywhere("list of training videos", lambda: state.train_list)
    if val_loader is not None:
        records = val_loader.dataset.records
        same_everywhere("list of validation videos", lambda: list_digest(records))
    state.epoch, state.resumed = begin(
        cfg, model, state.optimizer, state.scaler, state.class_names, state.train_list
    )
    if not state.resumed:
        together(lambda: set_aside(cfg, state.epoch))
    log_start(state, train_loader)
    if is_main():
        for doubt in doubts(dataset.records, cfg.MODEL.NUM_CLASSES, dataset.class_names):
            logger.warning("the training list: %s", doubt)
    with contextlib.ExitStack() as stack:
        tensorboard = None
        if cfg.TENSORBOARD.ENABLE:
            log_dir = cfg.TENSORBOARD.LOG_DIR or str(Path(cfg.OUTPUT_DIR) / "tensorboard")
            tensorboard = together(lambda: TensorboardWriter(log_dir))
            stack.callback(tensorboard.close)
        stack.enter_context(worker_errors())
        run_epochs(state, train_loader, val_loader, tensorboard)
    return model


def set_aside(cfg: CfgNode, epoch: int) -> None:
    """Put a former run's checkpoints out of the way of one that starts in the same folder.

    Else a test, or a run that goes on after an interruption, would take the newest of both. The one
    that this run goes on from, with `epoch`, stays.
    """
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH if epoch else ""
    folder = set_aside_checkpoints(cfg.OUTPUT_DIR, source) if is_main() else None
    if folder:
        logger.warning(
            "%s holds a former run's checkpoints: this run %s, so they are in %s now",
            *(cfg.OUTPUT_DIR, f"goes on from {source}" if epoch else "starts over", folder),
        )


def run_epochs(
    state: TrainState,
    train_loader: VideoLoader,
    val_loader: VideoLoader | None,
    tensorboard: TensorboardWriter | None,
) -> None:
    """Train, save and validate, epoch by epoch, until the last or until it gets no better."""
    cfg = state.cfg
    # `is not None`: a loader is false where it has no batch for this rank, which then has to take
    # part in the exchanges of a validation all the same.
    total = 0 if val_loader is None else len(val_loader.dataset)
    broken, best = BrokenVideos(cfg.OUTPUT_DIR, "val", total), Best(state)

    def validate(epoch: int) -> None:
        assert val_loader is not None
        val = eval_epoch(cfg, state.model, val_loader, epoch, broken)
        if tensorboard:
            names = ("map",) if cfg.DATA.MULTI_LABEL else ("top1_acc", "top5_acc")
            tensorboard.add_scalars({f"val/{n}": val[n] for n in (*names, "loss")}, epoch + 1)
        best.update(epoch, val)

    def is_validated(epoch: int) -> bool:
        period, last = cfg.TRAIN.EVAL_PERIOD, epoch + 1 == cfg.SOLVER.MAX_EPOCH
        return val_loader is not None and (last or (epoch + 1) % period == 0)

    def is_over(done: int) -> bool:
        if done >= cfg.SOLVER.MAX_EPOCH:
            return True
        return done > 0 and is_validated(done - 1) and best.waited_enough(done)

    done = state.epoch
    if done and is_validated(done - 1):  # the run may have ended between saving and this
        if logged := logged_validation(state, done - 1):
            best.update(done - 1, logged)
        else:
            validate(done - 1)
    over = is_over(done)
    while not over:
        epoch, done = done, done + 1
        stats = train_epoch(state, train_loader, epoch, tensorboard)
        log_json_stats(stats, cfg.OUTPUT_DIR)
        check_finite(state, f"after epoch {done}")
        saved = done == cfg.SOLVER.MAX_EPOCH or is_checkpoint_epoch(cfg, epoch)
        if saved:
            save(state, epoch)
        if is_validated(epoch):
            validate(epoch)
        over = is_over(done)
        if over and not saved:
            save(state, epoch)


def log_start(state: TrainState, loader: VideoLoader) -> None:
    """Say what is about to run: model, data and how the global batch is made."""
    cfg, layout = state.cfg, state.layout
    if cfg.LOG_MODEL_INFO and is_main():
        logger.info("%s", cost_table(label(cfg), meta_model(cfg), view_shape(cfg)))
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
        "resumed": state.resumed,
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
        # Seeded by the step, DropPath and mixup need no saved generator state to resume; and alike
        # on all ranks, DropPath doesn't depend on how many share the step.
        seed_all("step", cfg.RNG_SEED, epoch, step)
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
        TrainingError: if loss or gradient are not finite; weights are as they were before the step.
        AnnotationError: if too many videos had to be replaced.
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
    norm = clip_gradients(state)
    flags = totals.new_tensor([0.0 if math.isfinite(norm) else 1.0, state.broken.take_new()])
    # Every rank sees the same sums, so all of them stop, or none.
    *sums, overflows, replaced = all_reduce_sum(torch.cat([totals, flags])).tolist()
    state.broken.check(round(replaced))
    problem = "" if math.isfinite(sums[0]) else "loss is not finite"
    if overflows and not problem:
        problem = "the gradient is not finite, though the loss is"
        if state.scaler.is_enabled() and state.scaler.get_scale() >= LEAST_LOSS_SCALE:
            logger.info("%s: the gradient overflows fp16, this step is left out", where)
            problem = ""
    if problem:
        ids = [i for batch in group for i in batch[2].tolist()]
        raise TrainingError(
            f"{problem} in {where} (this rank's videos: rows {ids} of the training list); "
            "lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_EPOCHS, set SOLVER.CLIP_GRAD_L2NORM, "
            "or look at these videos"
        )
    state.scaler.step(state.optimizer)  # with fp16, not where the gradient overflows
    state.scaler.update()
    return sums


def clip_gradients(state: TrainState) -> float:
    """Return the L2 norm of the whole gradient, and bring it down to SOLVER.CLIP_GRAD_L2NORM."""
    limit = state.cfg.SOLVER.CLIP_GRAD_L2NORM
    state.scaler.unscale_(state.optimizer)  # does nothing unless in fp16
    norm = nn.utils.get_total_norm(p.grad for p in state.model.parameters() if p.grad is not None)
    if limit > 0:
        nn.utils.clip_grads_with_norm_(state.model.parameters(), limit, norm)
    return float(norm)


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
