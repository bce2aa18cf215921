"""The weights that a run starts from or goes on with.

Which file that is, the main process decides; in the end all ranks have the same weights, or all of
them fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.clips.preprocessing import KEYS
from timesformer.config.validate import SCRATCH_OVERWRITTEN
from timesformer.engine import resume
from timesformer.engine.agreement import (
    architecture_of,
    compare_ranks,
    differing_input,
    invented_weights,
    resizing,
)
from timesformer.engine.ema import Ema
from timesformer.engine.going_on import Start, go_on
from timesformer.models.freezing import warn_of_random
from timesformer.models.weights.bundle import has_fresh_head
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.said import PREPROCESSING_KEYS
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import bare, former_checkpoints, get_last_checkpoint
from timesformer.utils.distributed import from_main, is_main, together
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)


def load_train_checkpoint(
    cfg: CfgNode,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
    class_names: Sequence[str] = (),
    videos: str = "",
) -> int:
    """Do what `begin` does, and return the epoch to go on with, counted from 0."""
    return begin(cfg, model, optimizer, scaler, class_names, videos).epoch


def begin(
    cfg: CfgNode,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
    class_names: Sequence[str] = (),
    videos: str = "",
    ema: Ema | None = None,
) -> Start:
    """Give a run its weights: those it left behind, else the start that the config asks for.

    The order is: the newest sound checkpoint in OUTPUT_DIR (TRAIN.AUTO_RESUME), then
    TRAIN.CHECKPOINT_FILE_PATH, then TIMESFORMER.PRETRAINED_MODEL, then fresh weights. The main
    process chooses; in the end all ranks have the same weights, or all of them fail.

    Args:
        cfg: the config.
        model: gets the weights.
        optimizer: gets what it had gathered, where training goes on.
        scaler: likewise.
        class_names: those of the data set, or ().
        videos: `list_digest` of the training list, to go on only with the same one.
        ema: gets what it was, or begins with the weights.

    Raises:
        WeightsError: if weights can't be read or don't belong to this model.
        ConfigError: training can't go on with this config.
    """
    last = get_last_checkpoint(cfg.OUTPUT_DIR) if cfg.TRAIN.AUTO_RESUME and is_main() else None
    last = from_main(last)
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH
    only_weights = cfg.TRAIN.FINETUNE or cfg.TRAIN.CHECKPOINT_EPOCH_RESET
    if last or (source and not only_weights):
        path = last or Path(source)
        _say_what_is_passed_over(cfg, last)
        start = together(
            lambda: go_on(cfg, path, bool(last), model, optimizer, scaler, videos, ema)
        )
    else:
        together(lambda: _refuse_own(cfg))
        fresh = together(lambda: _start(cfg, model, class_names))
        if is_main() and cfg.TRAIN.FREEZE:
            warn_of_random(bare(model), fresh)
        source = cfg.TRAIN.CHECKPOINT_FILE_PATH or cfg.TIMESFORMER.PRETRAINED_MODEL
        start = Start(0, False, source=source)
        if ema:
            ema.start_from(model)
    compare_ranks(model, optimizer, ema.module if ema else None)
    return start


def _refuse_own(cfg: CfgNode) -> None:
    """Refuse to start at epoch 0 from a checkpoint that lies where this run puts its own.

    It would be set aside with the others, and the same command, run again, would find nothing
    there, or what this run has saved under its name since.

    Raises:
        ConfigError: naming the key.
    """
    keys = ("TRAIN.CHECKPOINT_FILE_PATH", "TIMESFORMER.PRETRAINED_MODEL")
    values = dict(cfg.leaves())
    key = next((key for key in keys if values[key]), "")
    former = former_checkpoints(cfg.OUTPUT_DIR)
    own = {path.resolve() for path in (Path(cfg.OUTPUT_DIR), *former)} if former else set()
    if key and Path(values[key]).resolve() in own:
        raise ConfigError(
            f"{key} {values[key]}: is of OUTPUT_DIR {cfg.OUTPUT_DIR} itself, whose checkpoints "
            "make room for those of a run that starts at epoch 0: take another OUTPUT_DIR, or move "
            "the file out of checkpoints/ and name it there"
        )


def _say_what_is_passed_over(cfg: CfgNode, last: Path | None) -> None:
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH
    asked = [f"TRAIN.{k}" for k in ("FINETUNE", "CHECKPOINT_EPOCH_RESET") if cfg.TRAIN[k]]
    if last and source and Path(source).absolute() != last.absolute():
        logger.info(
            "%s is there, so this run goes on from it; TRAIN.CHECKPOINT_FILE_PATH %s%s is where it "
            "began, and isn't read again. To start over: another OUTPUT_DIR, or TRAIN.AUTO_RESUME "
            "False",
            *(last, source, f" ({', '.join(asked)})" if asked else ""),
        )


def _start(cfg: CfgNode, model: nn.Module, class_names: Sequence[str]) -> set[str]:
    """Load the weights that a run starts from, at epoch 0; return the names of those it lacks."""
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if cfg.TRAIN.FINETUNE and not source:
        logger.warning(
            "TRAIN.FINETUNE True, but TRAIN.CHECKPOINT_FILE_PATH names no model to fine-tune: "
            "training starts as without it"
        )
    if source and cfg.TRAIN.FINETUNE:
        return finetune(cfg, model, source, class_names)
    if source:
        content = read_weights(source)
        other = resume.other_model(content, cfg, architecture_of(cfg, model))
        advice = "set these back; or, to start another model from its weights, TRAIN.FINETUNE True"
        resume.refuse(source, other, advice)
        report = load_pretrained(bare(model), content, **resizing(cfg), name=source)
        compare_input(cfg, source, content)
        if _of_other_classes(content, class_names):
            logger.warning(
                "%s was trained on other class names, or in another order; its head is kept, as "
                "TRAIN.CHECKPOINT_EPOCH_RESET asks for: are the labels those of training?",
                source,
            )
        if invented := invented_weights(report):
            raise WeightsError(
                f"{source}: TRAIN.CHECKPOINT_EPOCH_RESET takes all weights of the same task, but "
                f"it lacks {', '.join(invented[:5])}; for another task, set TRAIN.FINETUNE True"
            )
        return set()
    if source := cfg.TIMESFORMER.PRETRAINED_MODEL:
        content = read_weights(source)
        target: Any = bare(model)
        make_fresh = _head_as_made(target)
        report = load_pretrained(target, content, **resizing(cfg), name=source)
        fresh = {*report.missing}
        if not has_fresh_head(target, report) and _of_other_classes(content, class_names):
            fresh |= make_fresh()
            logger.warning(
                "%s was trained on other class names, or in another order: the head is fresh",
                source,
            )
        compare_input(cfg, source, content, image=bool(report.copied or report.zeroed))
        _compare_model(cfg, source, content, model)
        if cfg.TIMESFORMER.INIT == "scratch" and (report.copied or report.zeroed):
            raise ConfigError(SCRATCH_OVERWRITTEN)
        return fresh
    logger.info("training from fresh weights (TIMESFORMER.INIT %s)", cfg.TIMESFORMER.INIT)
    return {name.removeprefix("model.") for name, _ in bare(model).named_parameters()}


def finetune(cfg: CfgNode, model: nn.Module, source: str, class_names: Sequence[str]) -> set[str]:
    """Load a model that was trained on another task; its head goes where the classes differ.

    Returns:
        Names of weights that it lacks.
    """
    target: Any = bare(model)
    content = read_weights(source)
    theirs = tuple(content.get("class_names") or ())
    make_fresh = _head_as_made(target)
    report = load_pretrained(target, content, **resizing(cfg), name=source)
    compare_input(cfg, source, content)
    _compare_model(cfg, source, content, model)
    fresh = {*report.missing}
    if has_fresh_head(target, report):
        logger.info("TRAIN.FINETUNE: the head is fresh, for %d classes", cfg.MODEL.NUM_CLASSES)
    elif theirs and theirs == tuple(class_names):
        logger.info("TRAIN.FINETUNE: %s has the same classes: its head is kept", source)
    else:
        fresh |= make_fresh()
        known = "but others" if theirs and class_names else "whose names aren't known to be these"
        logger.info(
            "TRAIN.FINETUNE: %s has as many classes, %s: the head is fresh. To keep its own, set "
            "TRAIN.CHECKPOINT_EPOCH_RESET True instead of TRAIN.FINETUNE",
            *(source, known),
        )
    return fresh


def _head_as_made(target: Any) -> Callable[[], set[str]]:
    """Return what gives a model's head the weights back that it has now, and says their names."""
    head = target.get_classifier()
    fresh = {name: value.clone() for name, value in head.state_dict().items()}

    def make_fresh() -> set[str]:
        head.load_state_dict(fresh)
        return {f"{getattr(target, 'classifier_name', 'head')}.{name}" for name in fresh}

    return make_fresh


def _of_other_classes(content: Mapping[str, Any], class_names: Sequence[str]) -> bool:
    """Whether the names are known of both the weights and the data set, and aren't the same."""
    theirs = tuple(content.get("class_names") or ())
    return bool(theirs and class_names) and theirs != tuple(class_names)


def _compare_model(cfg: CfgNode, source: str, content: Mapping[str, Any], model: nn.Module) -> None:
    """Say in what a model to start from is another than the config's, though its shapes fit."""
    other = resume.other_model(content, cfg, architecture_of(cfg, model))
    other.pop("MODEL.NUM_CLASSES", None)  # what is fine-tuned has its own
    for line in resume.in_words(other):
        logger.warning("%s is of another model than the config's: %s", source, line)


def compare_input(
    cfg: CfgNode, source: str, content: Mapping[str, Any], *, image: bool = False
) -> None:
    """Say where the pixels that weights to train from expect aren't those of the config.

    Args:
        cfg: the config.
        source: what the weights are called.
        content: what `read_weights` read.
        image: whether they start a video model as an image model's do. The published recipes then
            change the statistics on purpose, so it is no warning.
    """
    say = logger.info if image else logger.warning
    for name, (theirs, ours) in differing_input(cfg, source, content.get("preprocessing")).items():
        if name in PREPROCESSING_KEYS:
            say(
                "%s expects %s %s, and %s says %s",
                *(source, name, theirs, KEYS[name], ours),
            )
