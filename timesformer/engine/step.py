"""One optimizer step: mixed precision, accumulation, clipping, and the check that all is finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.datasets.loader import Batch
from timesformer.engine.nonfinite import Part
from timesformer.engine.sharding import whole
from timesformer.engine.state import TrainState
from timesformer.models.attention.dropping import set_batch_part
from timesformer.models.compiling import code_errors
from timesformer.utils.distributed import all_reduce_sum, get_world
from timesformer.utils.logging import get_logger
from timesformer.utils.metrics import topk_counts
from timesformer.utils.precision import autocast
from timesformer.utils.rng import seed_all
from timesformer.utils.watchdog import doing

logger = get_logger(__name__)

# fp16 halves its scale of the loss where a gradient overflows; one that overflows even so is wrong.
LEAST_LOSS_SCALE = 1.0


class StepResult(NamedTuple):
    """What a step found, the same on all ranks.

    Attributes:
        sums: summed loss, number of clips wrong at top-1, at top-5, number of clips; zeros where
            the step is left out.
        norm: of the gradient, before clipping.
        save: whether the state is to be saved now (`Interruption`).
        left_out: whether the step was left out, since something was not finite.
    """

    sums: list[float]
    norm: float
    save: bool
    left_out: bool = False


def train_step(state: TrainState, group: Sequence[Batch], epoch: int, step: int) -> StepResult:
    """One optimizer step on a group of batches, whose gradients are averaged.

    The host waits for the device once, when all ranks have agreed on what the step gave; in fp16
    once more, as the scaler asks whether the gradient overflows.

    Args:
        state: the run.
        group: batches of this rank.
        epoch: from 0.
        step: of the epoch, from 0. Both are keys of all that is random.

    Raises:
        TrainingError: if loss or gradient are not finite, unless TRAIN.NONFINITE says to leave the
            step out; weights are as they were before it in any case.
        AnnotationError: if too many videos had to be replaced.
    """
    world = get_world()
    where = f"epoch {epoch + 1}, step {step + 1}"
    state.optimizer.zero_grad(set_to_none=True)
    dtype = torch.float64 if state.device.type == "cpu" else torch.float32
    totals = torch.zeros(4, dtype=dtype, device=state.device)
    state.nonfinite.before(state.model)
    parts: list[Part] = []
    for i, (pixels, labels, index, meta) in enumerate(group):
        # Seeded by the step, DropPath and mixup need no saved generator state to resume; and alike
        # for all its parts, they depend on a clip's place in the step and not on who computes it.
        doing("forward pass", f"{i + 1} of {where}")
        seed_all("step", state.cfg.RNG_SEED, epoch, step)
        set_batch_part(state.model, i * world.size + world.rank, len(group) * world.size)
        pixels = pixels.to(state.device, non_blocking=True)
        inputs = state.augment(pixels, index, meta["view"], epoch)
        tubes = state.tubes(inputs, index, meta["view"], epoch)
        labels = labels.to(state.device, non_blocking=True)
        targets = labels
        if state.mixup:
            inputs, targets = state.mixup(inputs, labels)
        with _sync_gradients(state.model, i + 1 == len(group)):
            with autocast(state.device, state.cfg.TRAIN.AMP):
                # Models that can't leave patches out, for which it is None, take clips alone.
                seen = (inputs,) if tubes is None else (inputs, tubes)
                logits = state.model(*seen).float()
                loss = state.loss(logits, targets)
            with _code_of_gradients(state):
                state.scaler.scale(loss / len(group)).backward()
        parts.append(Part(logits.detach(), loss.detach(), index))
        totals += _totals(loss.detach(), logits.detach(), labels)
    norm = clip_gradients(state)
    wishes = torch.tensor([state.broken.take_new(), *state.interruption.wishes()], dtype=dtype)
    found = [totals, ~norm.isfinite()[None], wishes.to(state.device, non_blocking=True)]
    doing("exchange of all ranks", where)
    # Every rank sees the same sums, so all of them stop, or none.
    summed = all_reduce_sum(torch.cat([one.to(dtype) for one in found]))
    *sums, overflows, replaced, stop, save, size = torch.cat(
        [summed, norm[None].to(dtype)]
    ).tolist()
    state.broken.check(round(replaced))
    problem = "" if math.isfinite(sums[0]) else "loss is not finite"
    if overflows and not problem:
        problem = "the gradient is not finite, though the loss is"
        if state.scaler.is_enabled() and state.scaler.get_scale() >= LEAST_LOSS_SCALE:
            logger.info("%s: the gradient overflows fp16, this step is left out", where)
            problem = ""
    if problem:
        state.nonfinite.leave_out(problem, where, parts, state.model)
        # Else it would complain of a step that wasn't taken; it changes neither scale nor count.
        state.scaler.update(state.scaler.get_scale())
        state.optimizer.zero_grad(set_to_none=True)
        return StepResult([0.0] * len(sums), size, state.interruption.agreed(stop, save), True)
    state.nonfinite.in_a_row = 0
    doing("optimizer step", where)
    state.scaler.step(state.optimizer)  # with fp16, not where the gradient overflows
    state.scaler.update()
    if state.ema and not overflows:
        state.ema.update(state.model)
    return StepResult(sums, size, state.interruption.agreed(stop, save))


def clip_gradients(state: TrainState) -> Tensor:
    """Return the L2 norm of the whole gradient, and bring it down to SOLVER.CLIP_GRAD_L2NORM."""
    limit = state.cfg.SOLVER.CLIP_GRAD_L2NORM
    state.scaler.unscale_(state.optimizer)  # does nothing unless in fp16
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = whole(nn.utils.get_total_norm(gradients))
    if limit > 0:
        nn.utils.clip_grads_with_norm_(state.model.parameters(), limit, norm)
    return norm


def _sync_gradients(model: nn.Module, sync: bool) -> contextlib.AbstractContextManager:
    """Ranks exchange gradients in the last forward pass of a step only."""
    if sync or not isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()


def _code_of_gradients(state: TrainState) -> contextlib.AbstractContextManager:
    """With TRAIN.COMPILE it is made when gradients are first computed."""
    return code_errors("TRAIN.COMPILE") if state.cfg.TRAIN.COMPILE else contextlib.nullcontext()


def _totals(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    count = len(labels)
    wrong = count - topk_counts(logits, labels, (1, 5))
    return torch.cat([loss[None] * count, wrong, wrong.new_full((1,), count)])
