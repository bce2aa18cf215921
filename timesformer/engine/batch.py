"""TRAIN.BATCH_SIZE auto: as many clips in a forward pass as fit into memory.

Only numbers that give GLOBAL_BATCH_SIZE by accumulation are taken, so a step stays what it is. On a
GPU they are tried, the largest that should fit first; on the CPU, where who takes too much is
killed, they are worked out. All ranks take the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from fvcore.common.config import CfgNode

from timesformer.config.allowed import is_auto
from timesformer.config.layout import batch_choices, with_batch
from timesformer.engine.ema import Ema
from timesformer.engine.memory import is_out_of_memory
from timesformer.engine.needs import GIB, Needs, training_needs
from timesformer.engine.optimizer import construct_optimizer
from timesformer.engine.resume import stored_keys
from timesformer.models.build import choose_trained, clip_shape, make_model
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.distributed import (
    device_for,
    from_main,
    gather_objects,
    get_world,
    is_main,
    together,
)
from timesformer.utils.errors import TrainingError
from timesformer.utils.limits import memory_left
from timesformer.utils.logging import get_logger
from timesformer.utils.precision import autocast
from timesformer.utils.text import counted
from timesformer.utils.watchdog import doing

logger = get_logger(__name__)

OF_CPU = 0.7  # of the memory that is free; loaders and other programs need some, too
BEYOND = 1.5  # times what is free by calculation, up to which a GPU is tried
UNKNOWN = 8 * GIB  # of a system that doesn't say how much memory is free


def with_chosen_batch(cfg: CfgNode) -> CfgNode:
    """Return a config with a number for TRAIN.BATCH_SIZE auto; others as they are.

    A run that goes on keeps the number that it had, if that fits here too.

    Raises:
        ConfigError: no number gives GLOBAL_BATCH_SIZE.
        TrainingError: not even the least fits.
    """
    if not is_auto("TRAIN.BATCH_SIZE", cfg.TRAIN.BATCH_SIZE):
        return cfg
    world = get_world()
    choices = batch_choices(cfg, world.local_size, world.size // world.local_size)
    before = from_main(together(lambda: _before(cfg) if is_main() else 0))
    clips = [n // world.local_size for n in choices]  # of a process
    doing("measurement of memory")
    if device_for(cfg).type == "cpu":
        chosen = from_main(together(lambda: _by_calculation(cfg, clips) if is_main() else 0))
        how = "by calculation"
    else:
        chosen = min(gather_objects(together(lambda: _by_trial(cfg, clips))))
        how = "by trial"
    if not chosen:
        raise TrainingError(
            f"TRAIN.BATCH_SIZE auto: memory doesn't suffice for {counted(clips[0], 'clip')} in a "
            "process: take TIMESFORMER.ACT_CHECKPOINT True, TRAIN.AMP bf16, TRAIN.FREEZE, or a "
            "smaller model, or fewer or smaller frames"
        )
    if before in choices and before // world.local_size <= chosen:
        chosen, how = before // world.local_size, "as before"
    passes = cfg.GLOBAL_BATCH_SIZE // (chosen * world.size)
    logger.info(
        "TRAIN.BATCH_SIZE auto: %d, %s in a process (%s), so %s make a step",
        *(chosen * world.local_size, counted(chosen, "clip"), how),
        counted(passes, "forward pass", "forward passes"),
    )
    return with_batch(cfg, chosen * world.local_size)


def _before(cfg: CfgNode) -> int:
    """Return what a run that goes on had."""
    last = get_last_checkpoint(cfg.OUTPUT_DIR) if cfg.TRAIN.AUTO_RESUME else None
    return int(stored_keys(read_checkpoint(last)).get("TRAIN.BATCH_SIZE", 0)) if last else 0


def _by_calculation(cfg: CfgNode, choices: Sequence[int]) -> int:
    """Return the largest choice that all processes of the node have memory for; 0 for none."""
    left = memory_left()
    free = UNKNOWN if left is None else left
    own = int(OF_CPU * free) // get_world().local_size
    needs = training_needs(cfg, get_world().size)
    logger.info(
        "%.1f GiB of memory are free for each process, of which training takes %.2f and %.3f for "
        "each clip of a forward pass",
        *(own / GIB, needs.total(0) / GIB, (needs.total(1) - needs.total(0)) / GIB),
    )
    return max((n for n in choices if n <= needs.clips(own)), default=0)


def _by_trial(cfg: CfgNode, choices: Sequence[int]) -> int:
    """Return the largest choice that a training step on this GPU has memory for; 0 for none."""
    device = device_for(cfg)
    free, _ = torch.cuda.mem_get_info(device)
    return largest(choices, training_needs(cfg, get_world().size), free, lambda n: _try(cfg, n))


def largest(choices: Sequence[int], needs: Needs, free: int, attempt: Callable[[int], None]) -> int:
    """Try choices from above until one has the memory; 0 if none has.

    Args:
        choices: clips, ascending.
        needs: by calculation, to begin not far above what fits.
        free: bytes.
        attempt: makes a step of so many clips, or raises an error of memory.
    """
    likely = [n for n in choices if n <= max(choices[0], needs.clips(int(BEYOND * free)))]
    for clips in reversed(likely):
        try:
            attempt(clips)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.info("%s in a process are too many", counted(clips, "clip"))
        else:
            return clips
    return 0


def _try(cfg: CfgNode, clips: int) -> None:
    """Make two training steps of so many clips; the first makes the optimizer's state."""
    device = device_for(cfg)
    try:
        model = make_model(cfg).to(device).train()
        choose_trained(cfg, model)
        optimizer = construct_optimizer(model, cfg)
        average = Ema(cfg, model) if cfg.EMA.ENABLED else None  # lies beside the model in a run
        pixels = torch.zeros(clips, *clip_shape(cfg), device=device)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, cfg.TRAIN.AMP):
                loss = model(pixels * 1.0).float().logsumexp(-1).mean()
            loss.backward()
            optimizer.step()
        del model, optimizer, average, pixels, loss
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
