"""Going on with a run: what it was, what is asked for now, and what it had gathered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.engine import resume
from timesformer.engine.agreement import architecture_of
from timesformer.engine.ema import Ema
from timesformer.models.freezing import frozen_by
from timesformer.models.lora import is_added
from timesformer.utils.checkpoint import (
    Place,
    bare,
    check_name,
    numbered_checkpoints,
    place_of,
    read_checkpoint,
    restore,
)
from timesformer.utils.distributed import is_main
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

ANYWAY = "TRAIN.RESUME_ANYWAY"


class Start(NamedTuple):
    """Where a run begins."""

    epoch: int  # counted from 0
    resumed: bool  # from its own folder
    step: int = 0  # of that epoch that are done
    measured: Mapping[str, Any] = {}  # in them; see `TrainState`
    resumed_anyway: Sequence[Mapping[str, Any]] = ()  # likewise
    superseded: Sequence[Path] = ()  # see `Saver`
    source: str = ""  # what its weights are from


def go_on(
    cfg: CfgNode,
    path: Path,
    own: bool,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    videos: str,
    ema: Ema | None,
) -> Start:
    """Restore a run.

    Args:
        cfg: what is asked for now.
        path: the checkpoint.
        own: it is in the run's own folder, where it is found without being asked for.
        model: gets the weights.
        optimizer: gets what it had gathered.
        scaler: likewise.
        videos: `list_digest` of the training list, or "".
        ema: likewise, or None.

    Raises:
        ConfigError: it would be another run, and TRAIN.RESUME_ANYWAY is False.
        WeightsError: the file can't be read, or doesn't fit.
    """
    advice = (
        "to start over, use another OUTPUT_DIR, or set TRAIN.AUTO_RESUME False"
        if own
        else "to take its weights alone and start at epoch 0, set TRAIN.CHECKPOINT_EPOCH_RESET True"
    )
    content = read_checkpoint(path)
    bending, told = resume.compare(content, cfg, architecture_of(cfg, model))
    trained_on = content.get("train_list")
    other_list = isinstance(trained_on, str) and trained_on and videos and trained_on != videos
    if not cfg.TRAIN.RESUME_ANYWAY:
        anyway = f"{advice}; to go on all the same, and have that written down, set {ANYWAY} True"
        resume.refuse(path, bending, f"it can't go on so. Set these back; or, {anyway}")
        if other_list:
            raise ConfigError(
                f"{path} was trained on another list of videos (DATA.PATH_TO_DATA_DIR "
                f"{cfg.DATA.PATH_TO_DATA_DIR}): names, labels or their order have changed; {anyway}"
            )
    else:
        _refuse_other_parts(path, bending, model, advice)
        if other_list:
            bending[resume.LIST] = (str(trained_on)[:12], videos[:12])
    try:
        epoch = restore(path, content, model, optimizer) + 1
        if own:
            check_name(path, content)
        _restore_scaler(path, content.get("scaler_state"), scaler)
        if ema:
            ema.restore(path, content, model)
    except WeightsError as error:
        raise WeightsError(f"{error}; {advice}") from error
    for line in resume.in_words(told):
        logger.info("changed since %s: %s", path.name, line)
    step, measured = content.get("step", 0), content.get("measured", {})
    history = _history(path, content, bending, Place(epoch, step))
    logger.info("resuming from %s, after %s", path, Place(epoch, step))
    _compare_end(path, Place(epoch, step), cfg.SOLVER.MAX_EPOCH, advice)
    superseded: list[Path] = []
    if step and bending.keys() & resume.OF_AN_EPOCH:
        logger.info("what an epoch's steps are has changed: epoch %d begins again", epoch + 1)
        step, measured = 0, {}
        superseded = [
            path
            for path in numbered_checkpoints(cfg.OUTPUT_DIR)
            if (place_of(path) or Place(0)) > Place(epoch)
        ]
    measured = measured if isinstance(measured, Mapping) else {}
    return Start(epoch, own, step, measured, history, superseded, str(path))


def _refuse_other_parts(
    path: Path, bending: Mapping[str, tuple[Any, Any]], model: nn.Module, advice: str
) -> None:
    """Refuse what a checkpoint would overrule, or give to other parameters, without a word.

    The factor of LoRA's additions lies beside them, and moments of an optimizer have no names.

    Raises:
        ConfigError: naming the key.
    """
    added = any(map(is_added, model.state_dict())) and "LORA.RANK" not in bending
    if (alphas := bending.get("LORA.ALPHA")) and added:
        raise ConfigError(
            f"{path}: the additions in it are for LORA.ALPHA {alphas[0]}, not {alphas[1]}: set it "
            f"back; or, {advice}"
        )
    if patterns := bending.get("TRAIN.FREEZE"):
        try:
            before, now = (frozen_by(bare(model), each) for each in patterns)
        except ConfigError:  # of another model
            return
        if before != now:
            raise ConfigError(
                f"{path}: its optimizer state is of other parameters than those that TRAIN.FREEZE "
                f"{patterns[1]!r:.200} leaves: set it back to {patterns[0]!r:.200}; or, {advice}"
            )


def _compare_end(path: Path, place: Place, last: int, advice: str) -> None:
    """Say where there is nothing left to train.

    Raises:
        ConfigError: it is within an epoch after the last, for which there is no learning rate.
    """
    if place.epochs < last:
        return
    if place.steps:
        raise ConfigError(
            f"{path} is of {place}, and SOLVER.MAX_EPOCH is {last}: set it to {place.epochs + 1} "
            f"or more; or, {advice}"
        )
    say = logger.warning if place.epochs > last else logger.info
    say("%s epochs are done, and SOLVER.MAX_EPOCH is %s: nothing is trained", place.epochs, last)


def _history(
    path: Path, content: Mapping[str, Any], bending: Mapping[str, tuple[Any, Any]], place: Place
) -> list[Mapping[str, Any]]:
    """Say what of a run changes that is refused otherwise; return this and what did before."""
    before = content.get("resumed_anyway")
    before = before if isinstance(before, list) else []
    history = [said for said in before if isinstance(said, Mapping)]
    if bending:
        lines = resume.in_words(bending)
        for line in lines if is_main() else ():
            logger.warning("%s: %s was trained with another %s", ANYWAY, path.name, line)
        history.append({"epoch": place.epochs, "step": place.steps, "changes": lines})
    return history


def _restore_scaler(path: Path, saved: Any, scaler: torch.amp.GradScaler | None) -> None:
    """Go on with the loss scale of fp16; a run that had none starts with a fresh one."""
    if scaler is None or not scaler.is_enabled():
        return
    if saved is None or (isinstance(saved, Mapping) and not saved):
        logger.info("%s was not trained in fp16: loss scaling starts afresh", path)
        return
    own = scaler.state_dict()
    numbers = isinstance(saved, Mapping) and saved.keys() == own.keys()
    if not numbers or not all(
        isinstance(x, int | float) and math.isfinite(x) and (x > 0 or name == "_growth_tracker")
        for name, x in saved.items()
    ):
        raise WeightsError(f"{path}: its scaler_state isn't one of loss scaling")
    scaler.load_state_dict(dict(saved))
