"""Checks of the merged config, before data or devices are touched.

Every message names the key to change. What only a registry or a file can know (names of
models, datasets and schemes, lists of videos, image weights) is checked where it is used.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from timesformer.config.allowed import CHOICES, HUBS, NOT_EMPTY, PATHS, RANGES, is_auto
from timesformer.config.defaults import get_cfg
from timesformer.config.fewer_tokens import reduced_epochs
from timesformer.config.layout import (
    batch_choices,
    batch_layout,
    nearest_multiples,
    per_rank,
    ranks,
    with_batch,
)
from timesformer.config.multigrid import grids
from timesformer.config.node import CfgNode, conform
from timesformer.utils.errors import ConfigError
from timesformer.utils.launchers import check_tasks, tasks
from timesformer.utils.text import counted, not_known

LONGEST_NAME = 240  # bytes: file systems take 255, of which the names of temporary files take some
SCRATCH_OVERWRITTEN = (
    "TIMESFORMER.INIT scratch would be overwritten by the image weights of "
    "TIMESFORMER.PRETRAINED_MODEL: set that to '' or INIT to image"
)


def check(cfg: CfgNode) -> None:
    """Check a merged config, touching neither data nor devices.

    Raises:
        ConfigError: naming the key to change.
    """
    conform(cfg, get_cfg(), "config")  # also catches what Python code has set
    _check_values(cfg)
    if is_auto("TRAIN.BATCH_SIZE", cfg.TRAIN.BATCH_SIZE):
        if cfg.TRAIN.ACTIVATION_GIB:
            raise ConfigError(
                "TRAIN.BATCH_SIZE auto fits the batch to memory, and TRAIN.ACTIVATION_GIB what is "
                "kept to a batch: give a number for the one, or 0 for the other"
            )
        # Checked with the least that auto may choose; it divides all others.
        smallest = batch_choices(cfg, *ranks(cfg))[0] if cfg.TRAIN.ENABLE else ranks(cfg)[0]
        cfg = with_batch(cfg, smallest)
    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE):
        raise ConfigError("TRAIN.ENABLE and TEST.ENABLE are both False: nothing to do")
    _check_processes(cfg)
    _check_model(cfg)
    _check_data(cfg)
    if cfg.TRAIN.ENABLE:
        _check_training(cfg)
    if cfg.TEST.ENABLE:
        _check_test(cfg)


def check_devices(cfg: CfgNode) -> None:
    """Check that this node has the GPUs that the config asks for, and srun's tasks fit them.

    Raises:
        ConfigError: saying how many there are.
    """
    check_tasks(cfg.NUM_GPUS, cfg.NUM_SHARDS)
    if cfg.NUM_GPUS == 0:
        return
    import torch  # a wrong config is reported without waiting for this import

    wanted, found = ranks(cfg)[0], torch.cuda.device_count()
    if wanted > found:
        by = tasks(cfg.NUM_GPUS, cfg.NUM_SHARDS)
        cause = f"{by.by} started processes for" if by else "NUM_GPUS asks for"
        raise ConfigError(
            f"NUM_GPUS {cfg.NUM_GPUS}: {cause} {wanted} on this node, which has {found} usable "
            f"GPU{'s' * (found != 1)}; "
            + (f"use at most {found}" if found else "NUM_GPUS 0 runs on the CPU")
            + ("; srun --gpus-per-node shows a task all of them" if by and by.by == "srun" else "")
        )


def _check_values(cfg: CfgNode) -> None:
    values = dict(cfg.leaves())
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise ConfigError(not_known(key, values[key], choices))
    for key in NOT_EMPTY:
        if not values[key]:
            raise ConfigError(f"{key} must not be empty")
    for key in (*PATHS, "TEST.SAVE_RESULTS_PATH"):
        if not values[key].isprintable():
            raise ConfigError(f"{key} {values[key]!r:.200}: a path without control characters")
    for words, allowed, keys in RANGES:
        for key in keys.split():
            numbers = values[key] if isinstance(values[key], list) else [values[key]]
            if not all(map(allowed, numbers)):
                raise ConfigError(f"{key} must be {words}, not {values[key]}")


def _check_processes(cfg: CfgNode) -> None:
    if not 0 <= cfg.SHARD_ID < cfg.NUM_SHARDS:
        raise ConfigError(
            f"SHARD_ID {cfg.SHARD_ID} must be between 0 and NUM_SHARDS - 1 = {cfg.NUM_SHARDS - 1}"
        )
    if cfg.DIST_BACKEND == "nccl" and cfg.NUM_GPUS == 0:
        raise ConfigError("DIST_BACKEND nccl needs GPUs, and NUM_GPUS is 0: use auto or gloo")
    for part in ("TRAIN", "TEST"):
        if cfg[part].ENABLE:
            if cfg[part].AMP == "fp16" and cfg.NUM_GPUS == 0:
                raise ConfigError(f"{part}.AMP fp16 needs a GPU, and NUM_GPUS is 0: use bf16")
            per_rank(cfg, part, ranks(cfg)[0])


def _check_model(cfg: CfgNode) -> None:
    model = cfg.TIMESFORMER
    if model.EMBED_DIM % model.NUM_HEADS:
        raise ConfigError(
            f"TIMESFORMER.EMBED_DIM {model.EMBED_DIM} is not divisible by "
            f"TIMESFORMER.NUM_HEADS {model.NUM_HEADS}"
        )
    if cfg.DATA.NUM_FRAMES % model.TUBELET_SIZE:
        raise ConfigError(
            f"DATA.NUM_FRAMES {cfg.DATA.NUM_FRAMES} is not divisible by TIMESFORMER.TUBELET_SIZE "
            f"{model.TUBELET_SIZE}"
        )
    for key in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE"):
        size, patch = cfg.DATA[key], model.PATCH_SIZE
        if size % patch:
            raise ConfigError(
                f"DATA.{key} {size} is not divisible by TIMESFORMER.PATCH_SIZE {patch}; "
                f"nearest: {nearest_multiples(size, patch)}"
            )


def _check_data(cfg: CfgNode) -> None:
    data = cfg.DATA
    for key in ("MEAN", "STD"):
        if len(data[key]) != 3:
            raise ConfigError(f"DATA.{key} must have 3 values, one a channel, not {data[key]}")
    for key, pair in (
        ("DATA.TRAIN_JITTER_SCALES", data.TRAIN_JITTER_SCALES),
        ("AUG.CROP_SCALE", cfg.AUG.CROP_SCALE),
        ("AUG.CROP_RATIO", cfg.AUG.CROP_RATIO),
    ):
        if len(pair) != 2 or pair[0] > pair[1]:
            raise ConfigError(f"{key} {pair}: give the least value, then the greatest")
    if 0 < data.TEST_SHORT_SIDE < data.TEST_CROP_SIZE:
        raise ConfigError(
            f"DATA.TEST_SHORT_SIDE {data.TEST_SHORT_SIDE} is below DATA.TEST_CROP_SIZE "
            f"{data.TEST_CROP_SIZE}: the crop wouldn't fit; 0 chooses one that does"
        )
    shares = data.FOLDER_SPLIT
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"DATA.FOLDER_SPLIT must be the shares of train, val and test, 1 in all, not {shares}"
        )
    if (cfg.MODEL.LOSS_FUNC == "bce") != data.MULTI_LABEL:
        raise ConfigError(
            f"DATA.MULTI_LABEL {data.MULTI_LABEL} doesn't go with MODEL.LOSS_FUNC "
            f"{cfg.MODEL.LOSS_FUNC}: several labels need bce, one label cross_entropy"
        )


def _check_training(cfg: CfgNode) -> None:
    layout = batch_layout(cfg, *ranks(cfg))
    solver, low = cfg.SOLVER, cfg.DATA.TRAIN_JITTER_SCALES[0]
    if low < cfg.DATA.TRAIN_CROP_SIZE and not cfg.AUG.RESIZED_CROP:  # which draws no such side
        raise ConfigError(
            f"DATA.TRAIN_JITTER_SCALES starts at {low}, below DATA.TRAIN_CROP_SIZE "
            f"{cfg.DATA.TRAIN_CROP_SIZE}: the crop wouldn't fit"
        )
    if layout.per_rank % cfg.DATA.NUM_SAMPLES:
        raise ConfigError(
            f"DATA.NUM_SAMPLES {cfg.DATA.NUM_SAMPLES} doesn't divide the "
            f"{counted(layout.per_rank, 'clip')} of a process: TRAIN.BATCH_SIZE must "
            "give it whole videos"
        )
    if cfg.DATA.MULTI_LABEL and (cfg.MIXUP.ENABLED or solver.LABEL_SMOOTHING):
        raise ConfigError(
            "MIXUP.ENABLED and SOLVER.LABEL_SMOOTHING are for videos with one label: turn them "
            "off with DATA.MULTI_LABEL"
        )
    if cfg.DATA.MULTI_LABEL and cfg.TRAIN.CLASS_BALANCE:
        raise ConfigError(
            "TRAIN.CLASS_BALANCE draws videos by their class, and with DATA.MULTI_LABEL they have "
            "several: set it to 0; MODEL.CLASS_WEIGHTS works with several labels"
        )
    if cfg.TRAIN.ACTIVATION_GIB and cfg.TIMESFORMER.ACT_CHECKPOINT:
        raise ConfigError(
            "TRAIN.ACTIVATION_GIB says how many blocks recompute their activations, and "
            "TIMESFORMER.ACT_CHECKPOINT True that all do: set one of them"
        )
    if cfg.TEST.WEIGHTS == "ema" and not cfg.EMA.ENABLED:
        raise ConfigError(
            "TEST.WEIGHTS ema needs the moving average that EMA.ENABLED True keeps while training"
        )
    if cfg.TRAIN.SHARDING == "fsdp" and solver.OPTIMIZING_METHOD == "adamw8bit":
        raise ConfigError(
            "SOLVER.OPTIMIZING_METHOD adamw8bit can't keep parts of tensors: set TRAIN.SHARDING "
            "none, or take adamw, of which each rank keeps its part"
        )
    if cfg.TRAIN.SHARDED_CHECKPOINTS and cfg.TRAIN.SHARDING == "none":
        raise ConfigError(
            "TRAIN.SHARDED_CHECKPOINTS needs ranks that have parts: set TRAIN.SHARDING fsdp"
        )
    if cfg.LORA.RANK and not cfg.TRAIN.FREEZE:
        raise ConfigError(
            f"LORA.RANK {cfg.LORA.RANK} trains small additions to weights that stay: say by "
            "TRAIN.FREEZE what else stays, e.g. '*, !head', or from image weights "
            "'*, !temporal_fc, !time_embed, !head'"
        )
    _check_schedule(solver)
    _check_fewer_tokens(cfg)
    _check_validation(cfg)
    if solver.OPTIMIZING_METHOD == "sgd" and solver.NESTEROV:
        if solver.MOMENTUM == 0:
            raise ConfigError("SOLVER.NESTEROV needs SOLVER.MOMENTUM above 0, or set it to False")
        if solver.DAMPENING != 0:
            raise ConfigError("SOLVER.NESTEROV needs SOLVER.DAMPENING 0, or set it to False")
    if cfg.MIXUP.ENABLED:
        if cfg.MIXUP.ALPHA == cfg.MIXUP.CUTMIX_ALPHA == 0:
            raise ConfigError("MIXUP.ENABLED needs MIXUP.ALPHA or MIXUP.CUTMIX_ALPHA above 0")
        if layout.per_rank % 2:
            raise ConfigError(
                f"MIXUP.ENABLED mixes pairs, and a process has {counted(layout.per_rank, 'clip')}: "
                "TRAIN.BATCH_SIZE must give every process an even number"
            )
    if cfg.TIMESFORMER.INIT == "scratch" and cfg.TIMESFORMER.PRETRAINED_MODEL.startswith(HUBS):
        raise ConfigError(SCRATCH_OVERWRITTEN)  # what a file holds is known when it is read
    _check_file("TRAIN.CHECKPOINT_FILE_PATH", cfg.TRAIN.CHECKPOINT_FILE_PATH)


def _check_validation(cfg: CfgNode) -> None:
    if cfg.TRAIN.EVAL_PERIOD:
        return
    wanted_by = "SOLVER.EARLY_STOP_EPOCHS" if cfg.SOLVER.EARLY_STOP_EPOCHS else ""
    if cfg.TEST.ENABLE and cfg.TEST.CHECKPOINT == "best":
        wanted_by = "TEST.CHECKPOINT best"
    if wanted_by:
        raise ConfigError(f"{wanted_by} needs validation, which TRAIN.EVAL_PERIOD 0 turns off")


def _check_fewer_tokens(cfg: CfgNode) -> None:
    train = cfg.TRAIN
    wanted = f"TRAIN.TUBE_KEEP {train.TUBE_KEEP:g}" if train.TUBE_KEEP < 1 else ""
    if train.MULTIGRID != "none":
        wanted = f"TRAIN.MULTIGRID {train.MULTIGRID}"
        grids(cfg)  # says what clips are too short or too small for
    epochs = reduced_epochs(cfg)
    if wanted and not epochs:
        raise ConfigError(
            f"{wanted} would have no effect: of SOLVER.MAX_EPOCH {cfg.SOLVER.MAX_EPOCH} the last "
            f"TRAIN.FULL_EPOCHS {train.FULL_EPOCHS} see whole clips"
        )
    if train.MULTIGRID in ("long", "both") and 1 < train.MULTIGRID_CYCLES > epochs // 2:
        raise ConfigError(
            f"TRAIN.MULTIGRID_CYCLES {train.MULTIGRID_CYCLES}: a cycle goes from epoch to epoch, "
            f"and {epochs} have smaller clips: set it to {max(1, epochs // 2)} at most"
        )


def _check_schedule(solver: CfgNode) -> None:
    if solver.LR_POLICY == "steps_with_relative_lrs":
        steps, lrs = solver.STEPS, solver.LRS
        if len(steps) != len(lrs):
            raise ConfigError(
                f"SOLVER.STEPS has {len(steps)} values and SOLVER.LRS {len(lrs)}: "
                "one rate for each step"
            )
        if steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
            raise ConfigError(f"SOLVER.STEPS must start with 0 and increase, not {steps}")
    elif solver.COSINE_END_LR > solver.BASE_LR:
        raise ConfigError(
            f"SOLVER.COSINE_END_LR {solver.COSINE_END_LR} is above SOLVER.BASE_LR {solver.BASE_LR}"
        )
    if solver.WARMUP_EPOCHS >= solver.MAX_EPOCH:
        raise ConfigError(
            f"SOLVER.WARMUP_EPOCHS {solver.WARMUP_EPOCHS} must be below SOLVER.MAX_EPOCH "
            f"{solver.MAX_EPOCH}: set it to {solver.MAX_EPOCH / 10:g}, or 0 for no warm-up"
        )
    if solver.WARMUP_EPOCHS > 0 and solver.WARMUP_START_LR > solver.BASE_LR:
        raise ConfigError(
            f"SOLVER.WARMUP_START_LR {solver.WARMUP_START_LR} is above SOLVER.BASE_LR "
            f"{solver.BASE_LR}: a warm-up rises"
        )


def _check_test(cfg: CfgNode) -> None:
    crops = cfg.TEST.NUM_SPATIAL_CROPS
    if crops not in (1, 3):
        raise ConfigError(f"TEST.NUM_SPATIAL_CROPS must be 1 or 3, not {crops}")
    names = [name.strip() for name in cfg.TEST.SAVE_RESULTS_PATH.split(",")]
    if names != [""] and any(Path(name).suffix not in (".npz", ".csv") for name in names):
        raise ConfigError(
            f"TEST.SAVE_RESULTS_PATH {cfg.TEST.SAVE_RESULTS_PATH!r}: each name must end in "
            ".npz or .csv"
        )
    for name in filter(None, names):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"TEST.SAVE_RESULTS_PATH {name}: must lie in OUTPUT_DIR")
        if len(os.fsencode(Path(name).name)) > LONGEST_NAME:
            raise ConfigError(f"TEST.SAVE_RESULTS_PATH {name:.40}…: too long for a file's name")
    if not cfg.TRAIN.ENABLE:  # otherwise training may still write it
        _check_file("TEST.CHECKPOINT_FILE_PATH", cfg.TEST.CHECKPOINT_FILE_PATH)


def _check_file(key: str, path: str) -> None:
    if path and not path.startswith(HUBS) and not Path(path).exists():
        raise ConfigError(f"{key}: there is no file {path}")
