"""Everything a training run needs to go on, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.clips.augment import ClipAugment
from timesformer.config.layout import BatchLayout
from timesformer.datasets.build import build_preprocessing
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.ema import Ema
from timesformer.engine.interruption import Interruption
from timesformer.engine.losses import ClipMixup
from timesformer.engine.nonfinite import NonFinite
from timesformer.engine.saving import LAST_PAUSE, LAST_TRIES, Saver, pause
from timesformer.engine.sharding import gathered, is_shared, local
from timesformer.engine.trace import Trace
from timesformer.engine.tubes import TubeChoice
from timesformer.utils.checkpoint import Place, bare, contents, path_to_save
from timesformer.utils.distributed import from_main, gather_objects, is_main, together
from timesformer.utils.errors import Stopped, TrainingError, WeightsError
from timesformer.utils.logging import get_logger
from timesformer.utils.meters import TrainMeter
from timesformer.utils.sharded_file import write_parts
from timesformer.utils.stopping import stopped
from timesformer.utils.tensors import all_finite
from timesformer.utils.watchdog import doing

logger = get_logger(__name__)


@dataclass
class TrainState:
    """A training run.

    Attributes:
        cfg: its configuration.
        device: where the model lives.
        layout: how the global batch is split over ranks and forward passes.
        model: the model, DDP-wrapped with several ranks unless they share it (`sharding`).
        optimizer: its optimizer.
        scaler: loss scaling; does nothing unless TRAIN.AMP is fp16.
        loss: (logits (B, K), targets) -> scalar.
        augment: makes of a batch's pixels what the model takes.
        tubes: chooses the patch positions that the model sees of them.
        mixup: mixes clips and labels of a batch, or None.
        broken: the training videos that couldn't be read.
        nonfinite: knows what to do with a step that isn't finite.
        ema: the moving average of the weights, or None.
        class_names: class names in label order, or ().
        interruption: says when to save within an epoch, and when to stop.
        saver: writes checkpoints.
        train_list: digest of the training list.
        val_list: of that of validation, or "".
        epoch: the next epoch to train, counted from 0.
        step: optimizer steps of it that are done.
        measured: what was measured in them, as `TrainMeter.to_json` says it, or {}.
        resumed: whether it goes on from its own folder, rather than from another run's.
        resumed_anyway: where it went on though it would have been refused: epochs and steps that
            were done, and the changes in words.
        source: what its weights are from, or "".
        environment: what checkpoints say of where it runs, see `provenance`.
        trace: of its first steps, or None.
    """

    cfg: CfgNode
    device: torch.device
    layout: BatchLayout
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: nn.Module
    augment: ClipAugment
    tubes: TubeChoice
    mixup: ClipMixup | None
    broken: BrokenVideos
    interruption: Interruption
    nonfinite: NonFinite
    saver: Saver
    ema: Ema | None = None
    class_names: Sequence[str] = ()
    train_list: str = ""
    val_list: str = ""
    epoch: int = 0
    step: int = 0
    measured: Mapping[str, Any] = field(default_factory=dict)
    resumed: bool = False
    resumed_anyway: Sequence[Mapping[str, Any]] = ()
    source: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    trace: Trace | None = None


def save(
    state: TrainState,
    epoch: int,
    validation: Mapping[str, Any] | None = None,
    *,
    step: int = 0,
    measured: Mapping[str, Any] | None = None,
) -> None:
    """Save a finished epoch (counted from 0); all ranks wait until training may go on.

    With TRAIN.CHECKPOINT_ASYNC the checkpoint is there later, see `settled`.

    Args:
        state: the run.
        epoch: from 0; -1 if none is finished.
        validation: makes it the best checkpoint instead, which did so well.
        step: steps of the next epoch that are done too.
        measured: see `TrainState`.

    Raises:
        TrainingError: there are weights that are not finite; nothing is written.
        WeightsError: this checkpoint, or the one before, can't be written, and
            TRAIN.ON_FAILED_SAVE is stop.
    """
    doing("checkpoint", f"after {Place(epoch + 1, step)}")
    check_finite(state, f"after {Place(epoch + 1, step)}")
    within: dict[str, Any] = {"measured": dict(measured)} if measured else {}
    if state.resumed_anyway:
        within["resumed_anyway"] = [dict(said) for said in state.resumed_anyway]

    if state.ema:
        within |= state.ema.to_checkpoint()
    if validation is None:
        state.interruption.saved()
    else:
        within["validation"] = dict(validation)
    best, shared = validation is not None, is_shared(bare(state.model))
    in_parts = shared and state.cfg.TRAIN.SHARDED_CHECKPOINTS and not best
    if not in_parts:
        # All ranks take part in this, and the main process alone in what follows.
        within |= gathered(state.model, state.optimizer, state.ema.module if state.ema else None)
    model: Any = bare(state.model)
    payload = contents(
        model,
        state.optimizer,
        epoch,
        state.cfg,
        step=step,
        scaler_state=state.scaler.state_dict(),
        architecture=model.architecture.to_json(),
        preprocessing=build_preprocessing(state.cfg, "train").to_json(),
        class_names=list(state.class_names),
        train_list=state.train_list,
        environment=dict(state.environment),
        **within,
    )
    path = path_to_save(state.cfg.OUTPUT_DIR, epoch, step, best, in_parts)
    if in_parts:
        _save_parts(state, path, payload)
    else:
        together(lambda: state.saver.save(path, payload) if is_main() else None)


def _save_parts(state: TrainState, path: Path, payload: Mapping[str, Any]) -> None:
    """Let every rank write its part, while training waits."""
    together(lambda: state.saver.wait() if is_main() else None)
    problem = None
    try:
        write_parts(path, payload)
    except WeightsError as error:  # on all ranks
        problem = error
    together(lambda: state.saver.written(path, problem) if is_main() else None)


def settled(state: TrainState) -> str:
    """Wait until nothing is being written; return why the newest checkpoint isn't there, or "".

    Raises:
        WeightsError: on all ranks, as `save`.
    """
    return from_main(together(lambda: state.saver.settled() if is_main() else ""))


def finish(state: TrainState, epoch: int) -> None:
    """Make sure that what a run leaves is there; a full disk gets some minutes' time.

    Args:
        state: the run.
        epoch: the last one, from 0, which is saved.

    Raises:
        WeightsError: the last checkpoint can't be written.
    """
    tries = LAST_TRIES
    while problem := settled(state):
        tries -= 1
        if tries == LAST_TRIES - 1:
            minutes = LAST_TRIES * LAST_PAUSE / 60
            logger.warning("the run's last checkpoint isn't there: waiting %g minutes", minutes)
            state.saver.last = True
        if not from_main(tries > 0 and pause() if is_main() else False):
            raise WeightsError(problem)
        save(state, epoch)


def save_within(state: TrainState, epoch: int, step: int, meter: TrainMeter) -> None:
    """Save so many steps of an epoch (from 0), and stop if the run was asked to.

    Raises:
        Stopped: it was.
    """
    state.broken.gather()
    save(state, epoch - 1, step=step, measured=meter.to_json())
    if state.interruption.stopping:
        raise stopped_after(state, Place(epoch, step))


def stopped_after(state: TrainState, place: Place) -> Stopped:
    """Return what ends a run that was asked to stop, once the checkpoint of that place is there."""
    if problem := settled(state):
        return stopped(f"not saved: {problem}: the same command goes on from the newest of them")
    return stopped(f"saved after {place}: the same command goes on from there")


def check_finite(state: TrainState, when: str) -> None:
    """Make sure that no rank has weights, or an optimizer state, that are not finite.

    Raises:
        TrainingError: on all ranks; what was saved before is as it was.
    """
    tensors = {f"weight {name}": t for name, t in bare(state.model).state_dict().items()}
    if state.ema:
        average = state.ema.module.state_dict()
        tensors |= {f"average of weight {name}": t for name, t in average.items()}
    names: dict[Any, str] = {p: name for name, p in bare(state.model).named_parameters()}
    for parameter, kept in state.optimizer.state.items():
        tensors |= {
            f"optimizer's {what} of {names[parameter]}": value for what, value in kept.items()
        }
    bad = [
        name
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
        and tensor.is_floating_point()
        and not all_finite(local(tensor))
    ]
    if found := next(filter(None, gather_objects(bad)), None):
        raise TrainingError(
            f"{len(found)} tensors are not finite {when} (the first is the {found[0]}): nothing is "
            "saved or tested, earlier checkpoints are as they were; lower SOLVER.BASE_LR, lengthen "
            "SOLVER.WARMUP_EPOCHS, or set SOLVER.CLIP_GRAD_L2NORM"
        )
