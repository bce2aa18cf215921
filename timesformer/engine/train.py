"""Training, in the order it runs: environment, build, restore, loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from fvcore.common.config import CfgNode
from torch import nn

from timesformer.config.fewer_tokens import reduced_epochs
from timesformer.config.layout import batch_layout
from timesformer.datasets.lists.consistency import doubts
from timesformer.datasets.lists.records import class_counts
from timesformer.datasets.loader import Batch, VideoLoader, construct_loader
from timesformer.datasets.workers import worker_errors
from timesformer.engine.assemble import make_state
from timesformer.engine.balance import log_balance
from timesformer.engine.batch import with_chosen_batch
from timesformer.engine.best import Best, logged_validation
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.ema import PREFIX
from timesformer.engine.evaluate import eval_epoch
from timesformer.engine.memory import memory_errors
from timesformer.engine.multigrid import check_model, lr_of
from timesformer.engine.needs import plan_recomputing
from timesformer.engine.opening import log_start, part_from_former_run, write_down
from timesformer.engine.optimizer import set_lr
from timesformer.engine.pace import Pace
from timesformer.engine.resume import list_digest
from timesformer.engine.saving import log_space, predicted_bytes
from timesformer.engine.scope import run_scope, tensorboard_dir
from timesformer.engine.sharding import share
from timesformer.engine.start import begin
from timesformer.engine.state import (
    TrainState,
    check_finite,
    finish,
    save,
    save_within,
    settled,
    stopped_after,
)
from timesformer.engine.step import train_step
from timesformer.engine.trace import Enough, Trace
from timesformer.models.build import build_model
from timesformer.models.compiling import compile_blocks
from timesformer.models.freezing import keep_statistics, warn_of_dead_ends
from timesformer.utils.checkpoint import Place, bare, is_checkpoint_epoch
from timesformer.utils.distributed import (
    get_world,
    is_main,
    same_everywhere,
    together,
)
from timesformer.utils.errors import Stopped
from timesformer.utils.logging import get_logger, log_json_stats, progress
from timesformer.utils.meters import TrainMeter
from timesformer.utils.rng import seed_all
from timesformer.utils.watchdog import doing
from timesformer.visualization.tensorboard import TensorboardWriter

logger = get_logger(__name__)


def train(cfg: CfgNode, steps: int | None = None) -> nn.Module:
    """Train as the config says, from where a former run left off, and return the model.

    Args:
        cfg: the config.
        steps: end after so many optimizer steps, which are traced; None trains to the end.

    Raises:
        ConfigError: for a batch layout or model that can't be, or that a run can't go on with.
        WeightsError: if the weights to start from can't be read or don't fit.
        AnnotationError: if a list is malformed, or too many videos can't be read.
        VideoError: if a video can't be read, and no other in its place.
        TrainingError: if the loss, a gradient or a weight is not finite; memory doesn't suffice; or
            a process that reads has ended.
        Stopped: a signal asked for it; what was done is saved.
    """
    with run_scope(cfg):
        cfg = with_chosen_batch(cfg)
        with memory_errors(cfg, "TRAIN"):
            return _train(cfg, steps)


def _train(cfg: CfgNode, ending: int | None) -> nn.Module:
    world = get_world()
    layout = batch_layout(cfg, world.local_size, world.size // world.local_size)
    check_model(cfg)
    seed_all("init", cfg.RNG_SEED)

    train_loader = together(lambda: construct_loader(cfg, "train"))
    val_loader = together(lambda: construct_loader(cfg, "val")) if cfg.TRAIN.EVAL_PERIOD else None
    model = build_model(cfg)
    plan_recomputing(cfg, bare(model), layout.per_rank)
    dataset = train_loader.dataset
    counts = class_counts(dataset.records, cfg.MODEL.NUM_CLASSES)
    state = make_state(
        cfg,
        layout,
        model,
        dataset.records,
        counts,
        class_names=dataset.class_names,
        train_list=list_digest(dataset.records),
        trace=Trace(cfg.OUTPUT_DIR, ending or cfg.TRAIN.TRACE_STEPS, ending is not None),
    )
    same_everywhere("list of training videos", lambda: state.train_list)
    if val_loader is not None:
        state.val_list = list_digest(val_loader.dataset.records)
        same_everywhere("list of validation videos", lambda: state.val_list)
    start = begin(
        cfg,
        model,
        state.optimizer,
        state.scaler,
        state.class_names,
        state.train_list,
        state.ema,
    )
    found = start._asdict()
    state.saver.superseded = found.pop("superseded")
    for name, value in found.items():
        setattr(state, name, value)
    if not state.resumed:
        goes_on = bool(state.epoch or state.step or state.resumed_anyway)
        together(lambda: part_from_former_run(cfg, goes_on))
    if is_main() and cfg.TRAIN.FREEZE:
        warn_of_dead_ends(model)
    write_down(state)
    log_start(state, train_loader, counts)
    if is_main():
        log_balance(cfg, counts)
        log_space(cfg, predicted_bytes(model, state.optimizer, state.ema))
        for doubt in doubts(dataset.records, cfg.MODEL.NUM_CLASSES, dataset.class_names):
            logger.warning("the training list: %s", doubt)
    average = state.ema.module if state.ema else None
    if cfg.TRAIN.COMPILE:  # before ranks share it, whose exchanges aren't to be compiled
        both = (model, average) if average else (model,)
        together(lambda: compile_blocks("TRAIN.COMPILE", *both))
    state.optimizer = share(cfg, model, state.optimizer, average)
    with contextlib.ExitStack() as stack:
        stack.enter_context(state.saver)
        tensorboard = None
        if cfg.TENSORBOARD.ENABLE:
            tensorboard = together(lambda: TensorboardWriter(str(tensorboard_dir(cfg))))
            stack.callback(tensorboard.close)
        stack.enter_context(worker_errors(train_loader, val_loader))
        stack.enter_context(contextlib.suppress(Enough))
        run_epochs(state, train_loader, val_loader, tensorboard)
    return model


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
    pace = Pace(state, train_loader)

    def validate(epoch: int) -> None:
        assert val_loader is not None
        average = state.ema.module if state.ema else None
        val = eval_epoch(cfg, state.model, val_loader, epoch, broken, average)
        if tensorboard:
            single = ("top1_acc", "top5_acc", "mean_class_acc")
            names = [*(("map",) if cfg.DATA.MULTI_LABEL else single), "loss"]
            names += [f"{PREFIX}{name}" for name in names] if state.ema else []
            tensorboard.add_scalars({f"val/{n}": val[n] for n in names}, epoch + 1)
        best.update(epoch, val)

    def is_validated(epoch: int) -> bool:
        period, last = cfg.TRAIN.EVAL_PERIOD, epoch + 1 == cfg.SOLVER.MAX_EPOCH
        return val_loader is not None and (last or (epoch + 1) % period == 0)

    def is_over(done: int) -> bool:
        if done >= cfg.SOLVER.MAX_EPOCH:
            return True
        # Not before the model has seen whole clips, which it is to get better on.
        seen = done > reduced_epochs(cfg)
        return seen and is_validated(done - 1) and best.waited_enough(done)

    done = state.epoch
    if done and not state.step:  # what a checkpoint of the best says of it is that of the last step
        *_, last_step = train_loader.steps.of(done - 1)
        set_lr(state.optimizer, lr_of(train_loader.steps, done - 1, last_step))
    # The run may have ended between saving and this, unless it has gone on since.
    if done and is_validated(done - 1) and not state.step:
        if logged := logged_validation(state, done - 1):
            best.update(done - 1, logged)
        else:
            validate(done - 1)
    over = not state.step and is_over(done)
    while not over:
        epoch, done = done, done + 1
        stats = train_epoch(state, train_loader, epoch, tensorboard)
        log_json_stats(stats | pace.judge(epoch, stats), cfg.OUTPUT_DIR)
        check_finite(state, f"after epoch {done}")
        last = done == cfg.SOLVER.MAX_EPOCH
        saved = last or is_checkpoint_epoch(cfg, epoch) or state.interruption.due
        if saved:
            save(state, epoch)
        if state.interruption.stopping:
            raise stopped_after(state, Place(done))
        if is_validated(epoch):
            try:
                validate(epoch)
            except Stopped:
                if not saved:
                    save(state, epoch)
                if settled(state):
                    raise stopped_after(state, Place(done)) from None
                raise
        over = is_over(done)
        if over and not saved:
            save(state, epoch)
    finish(state, done - 1)


def go_on_measuring(meter: TrainMeter, measured: Mapping[str, object]) -> None:
    """Take over what was measured of an epoch before the run was cut."""
    try:
        meter.restore(measured)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning(
            "the checkpoint doesn't say what was measured of its epoch (%r): this epoch's "
            "statistics are of what is left of it",
            error,
        )


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
    """One pass over the training set, or what is left of it; returns the epoch's statistics.

    Raises:
        Stopped: the run was asked to stop, and is saved.
    """
    cfg = state.cfg
    first, measured = state.step, state.measured
    state.step, state.measured = 0, {}
    loader.set_epoch(epoch, first * state.layout.accumulation)
    state.model.train()
    keep_statistics(state.model)
    last, count = cfg.SOLVER.MAX_EPOCH, loader.steps.count
    steps, before = count(epoch), sum(map(count, range(epoch)))
    later = sum(map(count, range(epoch + 1, last)))
    meter = TrainMeter(epoch, last, steps, state.device, later)
    if first:
        go_on_measuring(meter, measured)
    groups = in_groups(loader, state.layout.accumulation)
    plan = islice(loader.steps.of(epoch), first, None)
    doing("wait for videos", f"epoch {epoch + 1}, step {first + 1}")
    bar = progress(groups, desc=f"epoch {epoch + 1}", total=steps, initial=first)
    meter.wait()
    for step, group in enumerate(bar, first):
        meter.data_ready()
        lr = lr_of(loader.steps, epoch, next(plan))
        set_lr(state.optimizer, lr)
        for batch in group:
            state.broken.add(batch[3]["problems"])
        result = train_step(state, group, epoch, step)
        meter.update(result.sums, lr, left_out=result.left_out)
        if state.trace:
            state.trace.note(state.model, group, (epoch, step), result.sums[0], result.norm)
        if (step + 1) % cfg.LOG_PERIOD == 0 or step + 1 == steps:
            stats = meter.iter_stats(step)
            log_json_stats(stats, cfg.OUTPUT_DIR)
            if tensorboard:
                names = ("loss", "lr", "top1_err", "top5_err", "dt", "dt_data")
                tensorboard.add_scalars(
                    {f"train/{n}": float(stats[n]) for n in names}, before + step + 1
                )
        if result.save and step + 1 < steps:  # else the epoch is saved
            save_within(state, epoch, step + 1, meter)
        doing("wait for videos", f"epoch {epoch + 1}, step {step + 2}")
        meter.wait()
    doing("end of the epoch", epoch + 1)
    state.broken.gather()
    return meter.epoch_stats() | {"replaced_videos": len(state.broken.failed)}
