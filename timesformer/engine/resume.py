"""Whether a run may go on from a checkpoint: what it was trained with, and what is asked for now.

Some keys may change in the middle of a run: they are applied, and the log says what changed. Others
would make of it another run, neither the old one nor one of the new config: they are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from typing import Any

from fvcore.common.config import CfgNode

from timesformer.config.defaults import get_cfg
from timesformer.datasets.lists.records import Record
from timesformer.models.architecture import Architecture, told_by_config
from timesformer.models.weights.said import run_config
from timesformer.utils.errors import ConfigError

# Fields of the architecture that may change: they are of no weight's shape or meaning.
FREE_KNOBS = {"drop_path_rate", "act_checkpoint", "init", "time_embed_amplitude"}
# What may also differ without its being another model: weights are fitted to it, which is logged.
_FITTED = {"num_frames", "img_size", *FREE_KNOBS}
MODEL_KEYS = {f.metadata["key"] for f in fields(Architecture) if f.name not in _FITTED}

BENDING: frozenset[str] = frozenset(
    {
        *(f.metadata["key"] for f in fields(Architecture) if f.name not in FREE_KNOBS),
        *("GLOBAL_BATCH_SIZE", "RNG_SEED", "TRAIN.DATASET", "MODEL.LOSS_FUNC"),
        *("DATA.SAMPLING_RATE", "DATA.TARGET_FPS", "DATA.FRAMES_FPS", "DATA.TRIM_TO_SEGMENT"),
        *("DATA.MEAN", "DATA.STD", "DATA.REVERSE_INPUT_CHANNEL"),
        *("DATA.MULTI_LABEL", "DATA.NUM_SAMPLES", "DATA.FOLDER_SPLIT", "DATA.FRACTION"),
        *("SOLVER.OPTIMIZING_METHOD", "SOLVER.LAYER_DECAY"),
        *("TRAIN.FREEZE", "LORA.RANK", "LORA.ALPHA", "LORA.TARGETS"),
        *("TRAIN.MULTIGRID", "TRAIN.MULTIGRID_CYCLES", "TRAIN.MULTIGRID_BATCH"),
    }
)
"""Keys that a run keeps: model, data, and what a step is."""

MULTIGRID_PHASES = frozenset({"SOLVER.MAX_EPOCH", "TRAIN.FULL_EPOCHS"})
"""Keys that a run with TRAIN.MULTIGRID keeps too: they say when clips become larger."""

LIST = "list of videos"
"""What stands for it among the keys that changed: the digest of the training list."""

OF_AN_EPOCH = frozenset(
    {
        *(LIST, "GLOBAL_BATCH_SIZE", "RNG_SEED", "TRAIN.DATASET"),
        *("DATA.NUM_SAMPLES", "DATA.FRACTION", "DATA.FOLDER_SPLIT"),
        *("TRAIN.MULTIGRID", "TRAIN.MULTIGRID_CYCLES", "TRAIN.MULTIGRID_BATCH"),
        *MULTIGRID_PHASES,
    }
)
"""What the steps of an epoch follow from: with another, so many of them say nothing."""

SILENT: frozenset[str] = frozenset(
    {
        *("OUTPUT_DIR", "SHARD_ID", "LOG_PERIOD", "LOG_MODEL_INFO", "TRAIN.WATCHDOG_MINUTES"),
        *("TRAIN.CHECKPOINT_ASYNC", "TRAIN.ON_FAILED_SAVE"),
        *("TRAIN.ENABLE", "TRAIN.AUTO_RESUME", "TRAIN.CHECKPOINT_FILE_PATH"),
        *("TRAIN.CHECKPOINT_EPOCH_RESET", "TRAIN.FINETUNE", "TIMESFORMER.PRETRAINED_MODEL"),
        *("TRAIN.RESUME_ANYWAY", "TRAIN.TRACE_STEPS"),
        *(key for key, _ in get_cfg().leaves() if key.startswith("TEST.")),
    }
)
"""Keys whose change says nothing about the numbers that follow."""

APPLIED: frozenset[str] = frozenset(
    {
        *("NUM_GPUS", "NUM_SHARDS", "DIST_BACKEND", "TRAIN.BATCH_SIZE", "TRAIN.AMP"),
        *("TRAIN.SHARDING", "TRAIN.SHARDED_CHECKPOINTS", "TRAIN.GRAD_COMPRESSION"),
        "TRAIN.COMPILE",
        # Turned on late, when features have been learnt, they do well (Cao et al. 2019, LDAM-DRW).
        *("TRAIN.CLASS_BALANCE", "MODEL.CLASS_WEIGHTS"),
        *("TRAIN.EVAL_PERIOD", "TRAIN.CHECKPOINT_PERIOD", "TRAIN.KEEP_CHECKPOINTS"),
        *("TRAIN.CHECKPOINT_STEPS", "TRAIN.CHECKPOINT_MINUTES", "TRAIN.NONFINITE"),
        *("TRAIN.TUBE_KEEP", "TRAIN.FULL_EPOCHS"),
        *("DATA.PATH_TO_DATA_DIR", "DATA.PATH_LABEL_SEPARATOR", "DATA.PATH_PREFIX"),
        *("DATA.CLASS_NAMES", "DATA.TRAIN_JITTER_SCALES", "DATA.INV_UNIFORM_SAMPLE"),
        *("DATA.RANDOM_FLIP", "DATA.TEST_CROP_SIZE", "DATA.TEST_SHORT_SIDE"),
        *("DATA.TEST_CLIP_SAMPLING", "DATA.ENSEMBLE_METHOD", "DATA.MAX_FAILED"),
        *("DATA.DECODING_BACKEND", "DATA.DECODE_TIMEOUT"),
        *("AUG.RAND_AUGMENT_OPS", "AUG.RAND_AUGMENT_MAGNITUDE", "AUG.COLOR_JITTER"),
        *("AUG.RANDOM_ERASING", "AUG.RESIZED_CROP", "AUG.CROP_SCALE", "AUG.CROP_RATIO"),
        *("TIMESFORMER.POS_EMBED_RESIZE", "TIMESFORMER.TIME_EMBED_RESIZE"),
        *("TIMESFORMER.TUBELET_INIT", "TIMESFORMER.INIT", "TIMESFORMER.TIME_EMBED_AMPLITUDE"),
        *("TIMESFORMER.DROP_PATH_RATE", "TIMESFORMER.ACT_CHECKPOINT", "TRAIN.ACTIVATION_GIB"),
        *("SOLVER.BASE_LR", "SOLVER.LR_POLICY", "SOLVER.STEPS", "SOLVER.LRS"),
        *("SOLVER.COSINE_END_LR", "SOLVER.WARMUP_EPOCHS", "SOLVER.WARMUP_START_LR"),
        *("SOLVER.MAX_EPOCH", "SOLVER.EARLY_STOP_EPOCHS", "SOLVER.MOMENTUM"),
        *("SOLVER.DAMPENING", "SOLVER.NESTEROV", "SOLVER.WEIGHT_DECAY"),
        *("SOLVER.CLIP_GRAD_L2NORM", "SOLVER.LABEL_SMOOTHING"),
        *("MIXUP.ENABLED", "MIXUP.ALPHA", "MIXUP.CUTMIX_ALPHA", "MIXUP.PROB"),
        *("MIXUP.SWITCH_PROB", "DATA_LOADER.NUM_WORKERS", "DATA_LOADER.PIN_MEMORY"),
        *("DETERMINISTIC", "EMA.ENABLED", "EMA.DECAY", "EMA.WARMUP"),
        *("TENSORBOARD.ENABLE", "TENSORBOARD.LOG_DIR"),
    }
)
"""Keys that may change in the middle of a run: the config's value holds, and the log says so."""


def compare(
    stored: Mapping[str, Any], cfg: CfgNode, architecture: Architecture
) -> tuple[dict[str, tuple[Any, Any]], dict[str, tuple[Any, Any]]]:
    """Hold a checkpoint against the config that is to go on from it.

    Args:
        stored: the content of the checkpoint. What it doesn't say can't differ.
        cfg: what is asked for.
        architecture: the model that is asked for.

    Returns:
        What changed, by key, each with its old and new value: keys that would bend the run, and
        keys that may change.
    """
    before, now = stored_keys(stored), dict(cfg.leaves())
    # What the model is goes before what a config asked for: some names say their own sizes.
    before |= _knobs(told_by_config(before)) | _all_knobs(stored.get("architecture"))
    now |= _knobs(architecture.to_json())
    for keys in (before, now):
        # 0: a step for every forward pass of all nodes
        if keys.get("GLOBAL_BATCH_SIZE") == 0 and "TRAIN.BATCH_SIZE" in keys:
            keys["GLOBAL_BATCH_SIZE"] = keys["TRAIN.BATCH_SIZE"] * keys.get("NUM_SHARDS", 1)
    if "TRAIN.DATASET" in before:
        for keys in (before, now):
            keys["TRAIN.DATASET"] = str(keys["TRAIN.DATASET"]).lower()
    changed = {
        key: (before[key], value)
        for key, value in now.items()
        if key in before and before[key] != value
    }
    kept = BENDING | (MULTIGRID_PHASES if cfg.TRAIN.MULTIGRID != "none" else frozenset())
    bending = {key: values for key, values in changed.items() if key in kept}
    told = {key: values for key, values in changed.items() if key in APPLIED - kept}
    return bending, told


def other_model(
    stored: Mapping[str, Any], cfg: CfgNode, architecture: Architecture
) -> dict[str, tuple[Any, Any]]:
    """Return what makes a file's model another one than the config's, though its weights may fit.

    Args:
        stored: see `compare`, and so for the rest.
        cfg: what is asked for.
        architecture: the model that is asked for.
    """
    bending, _ = compare(stored, cfg, architecture)
    return {key: values for key, values in bending.items() if key in MODEL_KEYS}


def refuse(path: object, bending: Mapping[str, tuple[Any, Any]], advice: str) -> None:
    """Complain of what would bend the run.

    Raises:
        ConfigError: if there is anything, with all keys, old → new.
    """
    if bending:
        changes = ", ".join(
            f"{k}: {_show(old)} → {_show(new)}" for k, (old, new) in bending.items()
        )
        raise ConfigError(f"{path} was trained with another config ({changes}): {advice}")


def in_words(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return a line for each change, old → new."""
    return [f"{key}: {_show(old)} → {_show(new)}" for key, (old, new) in changes.items()]


def stored_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a checkpoint's config that are keys of the schema.

    Values of the wrong kind, which no run of ours writes, are left out.
    """
    known = dict(get_cfg().leaves())
    return {
        key: type(known[key])(value)
        for key, value in run_config(content).items()
        if key in known and _alike(value, known[key])
    }


def list_digest(records: Sequence[Record]) -> str:
    """Return the SHA-256 of a list's videos and labels, in order.

    Folders don't count, so data may be moved; all other changes make a run that goes on see other
    videos in another order.
    """
    digest = hashlib.sha256()
    for path, label, start, end, images in records:
        name = path.replace("\\", "/").rpartition("/")[2]
        part = f"{end}" if images is None else f"{end}\0{tuple(images)}"
        digest.update(f"{name}\0{label}\0{start}\0{part}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _knobs(said: Any) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        return {}
    keys = {f.name: f.metadata["key"] for f in fields(Architecture)}
    return {keys[name]: value for name, value in said.items() if name in keys}


def _all_knobs(stored: Any) -> dict[str, Any]:
    """Return a stored architecture by keys; a knob that is newer than it has its default."""
    if not isinstance(stored, Mapping) or not stored:
        return {}
    defaults = {f.name: f.default for f in fields(Architecture) if f.default is not MISSING}
    said = {name: value for name, value in (defaults | dict(stored)).items() if name in defaults}
    with suppress(ValueError):  # a value that a newer version has
        said = Architecture(**said).to_json()  # some defaults depend on the model
    return _knobs(said)


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _show(value: Any) -> str:
    return repr(value) if not isinstance(value, str) or " " in value or not value else value
