"""The weights that a run starts from, goes on with, or tests.

Which file that is, the main process decides; in the end all ranks have the same weights, or all of
them fail.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.clips.preprocessing import KEYS, Preprocessing
from timesformer.config.validate import SCRATCH_OVERWRITTEN
from timesformer.datasets.build import build_preprocessing
from timesformer.engine import resume
from timesformer.models.architecture import Architecture
from timesformer.models.weights.load import LoadReport, load_pretrained
from timesformer.models.weights.said import PREPROCESSING_KEYS
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import (
    bare,
    get_last_checkpoint,
    get_path_to_best,
    read_checkpoint,
    restore,
)
from timesformer.utils.distributed import from_main, gather_objects, get_world, is_main, together
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

    Returns:
        The epoch to go on with, counted from 0.

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
        epoch = together(lambda: _go_on(cfg, path, bool(last), model, optimizer, scaler, videos))
    else:
        together(lambda: _start(cfg, model, class_names))
        epoch = 0
    _compare_ranks(model, optimizer)
    return epoch


def _say_what_is_passed_over(cfg: CfgNode, last: Path | None) -> None:
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if last and source and Path(source).absolute() != last.absolute():
        logger.info(
            "%s is there, so this run goes on from it; TRAIN.CHECKPOINT_FILE_PATH %s%s is where it "
            "began, and isn't read again. To start over: another OUTPUT_DIR, or TRAIN.AUTO_RESUME "
            "False",
            *(last, source, " (TRAIN.FINETUNE)" if cfg.TRAIN.FINETUNE else ""),
        )


def _go_on(
    cfg: CfgNode,
    path: Path,
    own: bool,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    videos: str,
) -> int:
    """Restore a run; `own`: from its own folder, where it is found without being asked for."""
    advice = (
        "to start over, use another OUTPUT_DIR, or set TRAIN.AUTO_RESUME False"
        if own
        else "to take its weights alone and start at epoch 0, set TRAIN.CHECKPOINT_EPOCH_RESET True"
    )
    content = read_checkpoint(path)
    architecture = getattr(bare(model), "architecture", None) or Architecture.from_cfg(cfg)
    bending, told = resume.compare(content, cfg, architecture)
    resume.refuse(path, bending, f"it can't go on so. Set these back; or, {advice}")
    trained_on = content.get("train_list")
    if trained_on and videos and trained_on != videos:
        raise ConfigError(
            f"{path} was trained on another list of videos (DATA.PATH_TO_DATA_DIR "
            f"{cfg.DATA.PATH_TO_DATA_DIR}): names, labels or their order have changed; {advice}"
        )
    try:
        epoch = restore(path, content, model, optimizer) + 1
        _restore_scaler(path, content.get("scaler_state"), scaler)
    except WeightsError as error:
        raise WeightsError(f"{error}; {advice}") from error
    for line in resume.in_words(told):
        logger.info("changed since %s: %s", path.name, line)
    logger.info("resuming from %s: %d epochs are done", path, epoch)
    return epoch


def _restore_scaler(path: Path, saved: Any, scaler: torch.amp.GradScaler | None) -> None:
    """Go on with the loss scale of fp16; a run that had none starts with a fresh one."""
    if scaler is None or not scaler.is_enabled():
        return
    if not saved:
        logger.info("%s was not trained in fp16: loss scaling starts afresh", path)
        return
    own = scaler.state_dict()
    numbers = isinstance(saved, Mapping) and saved.keys() == own.keys()
    if not numbers or not all(
        isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in saved.values()
    ):
        raise WeightsError(f"{path}: its scaler_state isn't one of loss scaling")
    scaler.load_state_dict(dict(saved))


def _start(cfg: CfgNode, model: nn.Module, class_names: Sequence[str]) -> None:
    """Load the weights that a run starts from, at epoch 0."""
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if cfg.TRAIN.FINETUNE and not source:
        logger.warning(
            "TRAIN.FINETUNE True, but TRAIN.CHECKPOINT_FILE_PATH names no model to fine-tune: "
            "training starts as without it"
        )
    if source and cfg.TRAIN.FINETUNE:
        finetune(cfg, model, source, class_names)
    elif source:
        content = read_weights(source)
        report = load_pretrained(bare(model), content, **_resizing(cfg), name=source)
        compare_input(cfg, source, content)
        if invented := _invented(report):
            raise WeightsError(
                f"{source}: TRAIN.CHECKPOINT_EPOCH_RESET takes all weights of the same task, but "
                f"it lacks {', '.join(invented[:5])}; for another task, set TRAIN.FINETUNE True"
            )
    elif source := cfg.TIMESFORMER.PRETRAINED_MODEL:
        content = read_weights(source)
        report = load_pretrained(bare(model), content, **_resizing(cfg), name=source)
        compare_input(cfg, source, content, image=bool(report.copied or report.zeroed))
        if cfg.TIMESFORMER.INIT == "scratch" and (report.copied or report.zeroed):
            raise ConfigError(SCRATCH_OVERWRITTEN)
    else:
        logger.info("training from fresh weights (TIMESFORMER.INIT %s)", cfg.TIMESFORMER.INIT)


def finetune(cfg: CfgNode, model: nn.Module, source: str, class_names: Sequence[str]) -> None:
    """Load a model that was trained on another task; its head goes where the classes differ."""
    target: Any = bare(model)
    content = read_weights(source)
    theirs = tuple(map(str, content.get("class_names") or ()))
    head = target.get_classifier()
    fresh = {name: value.clone() for name, value in head.state_dict().items()}
    report = load_pretrained(target, content, **_resizing(cfg), name=source)
    compare_input(cfg, source, content)
    if any(name.endswith(("weight", "bias")) and "head" in name for name in report.missing):
        logger.info("TRAIN.FINETUNE: the head is fresh, for %d classes", cfg.MODEL.NUM_CLASSES)
    elif theirs and class_names and theirs != tuple(class_names):
        head.load_state_dict(fresh)
        logger.info(
            "TRAIN.FINETUNE: %s has as many classes, but others: the head is fresh. To keep its "
            "own, set TRAIN.CHECKPOINT_EPOCH_RESET True instead of TRAIN.FINETUNE",
            source,
        )
    else:
        known = "of the same names" if theirs and class_names else "whose names aren't known"
        logger.info("TRAIN.FINETUNE: %s has as many classes, %s: its head is kept", source, known)


def _compare_ranks(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Hold the ranks' weights against each other.

    Raises:
        WeightsError: they differ, e.g. because nodes have other files under the same name.
    """
    if get_world().size == 1:
        return
    digest = hashlib.sha256()
    states = optimizer.state.values() if optimizer else ()
    gathered = [value for kept in states for value in kept.values()]
    for tensor in (*bare(model).state_dict().values(), *gathered):
        if isinstance(tensor, torch.Tensor):
            digest.update(
                tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            )
    digests = gather_objects(digest.hexdigest())
    if others := [rank for rank, its in enumerate(digests) if its != digests[0]]:
        raise WeightsError(
            f"rank {others[0]} has loaded other weights than rank 0: OUTPUT_DIR and the files of "
            "TRAIN.CHECKPOINT_FILE_PATH, TEST.CHECKPOINT_FILE_PATH and "
            "TIMESFORMER.PRETRAINED_MODEL must be the same on all nodes"
        )


def _invented(report: LoadReport) -> list[str]:
    """Return the weights that a file of this very model would have given."""
    invented = [*report.missing, *report.copied, *report.zeroed]
    return invented + [name for name in report.resized if name.startswith("patch_embed")]


def _resizing(cfg: CfgNode) -> dict[str, str]:
    """How weights of other sizes are fitted: arguments of `load_pretrained`."""
    return {
        "pos_embed_resize": cfg.TIMESFORMER.POS_EMBED_RESIZE,
        "time_embed_resize": cfg.TIMESFORMER.TIME_EMBED_RESIZE,
        "tubelet_init": cfg.TIMESFORMER.TUBELET_INIT,
    }


class TestWeights(NamedTuple):
    """The weights that are tested."""

    path: str
    class_names: tuple[str, ...]  # as in training, or ()


def load_test_checkpoint(cfg: CfgNode, model: nn.Module) -> TestWeights:
    """Load the weights to test.

    They are TEST.CHECKPOINT_FILE_PATH, else the checkpoint in OUTPUT_DIR that TEST.CHECKPOINT says,
    else TRAIN.CHECKPOINT_FILE_PATH. The main process chooses. Nothing is ever tested with weights
    that training didn't make.

    Raises:
        WeightsError: if there are none, or they don't give every weight of the model.
    """
    path = from_main(choose_tested(cfg) if is_main() else "")
    if not path:
        raise WeightsError(
            f"nothing to test: {cfg.OUTPUT_DIR} holds no checkpoint; set "
            "TEST.CHECKPOINT_FILE_PATH to one, or train first (TRAIN.ENABLE True)"
        )
    weights = together(lambda: _load_tested(cfg, model, path))
    _compare_ranks(model)
    return weights


def choose_tested(cfg: CfgNode) -> str:
    """Return the file that is tested, "" for none."""
    if cfg.TEST.CHECKPOINT_FILE_PATH:
        return cfg.TEST.CHECKPOINT_FILE_PATH
    if cfg.TEST.CHECKPOINT == "best":
        best = get_path_to_best(cfg.OUTPUT_DIR)
        if not best.exists():
            raise WeightsError(
                f"TEST.CHECKPOINT best: {best} isn't there, since no epoch was validated; set it "
                "to last"
            )
        return str(best)
    return str(get_last_checkpoint(cfg.OUTPUT_DIR) or cfg.TRAIN.CHECKPOINT_FILE_PATH)


def _load_tested(cfg: CfgNode, model: nn.Module, path: str) -> TestWeights:
    source = read_weights(path)
    _compare_model(cfg, model, path, source)
    _compare_preprocessing(cfg, path, source)
    class_names = tuple(map(str, source.get("class_names") or ()))
    report: LoadReport = load_pretrained(
        bare(model),
        source,
        **_resizing(cfg),
        name=str(path),
    )
    if invented := _invented(report):
        raise WeightsError(
            f"{path}: not a checkpoint of this model: it lacks {len(invented)} weights "
            f"({', '.join(invented[:5])}, …); check TIMESFORMER.ATTENTION_TYPE and "
            "MODEL.NUM_CLASSES, or train first"
        )
    logger.info("testing %s", path)
    return TestWeights(str(path), class_names)


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
    for name, (theirs, ours) in _differing(cfg, source, content.get("preprocessing")).items():
        if name in PREPROCESSING_KEYS:
            say(
                "%s expects %s %s, and %s says %s",
                *(source, name, theirs, KEYS[name], ours),
            )


def _compare_model(cfg: CfgNode, model: nn.Module, path: str, source: Mapping[str, Any]) -> None:
    """Hold what a file says of its model against the config; equal shapes prove nothing.

    Raises:
        ConfigError: they differ, with the keys. Frames and crop may: their embeddings are resized.
    """
    target: Any = bare(model)
    architecture = getattr(target, "architecture", None) or Architecture.from_cfg(cfg)
    bending, _ = resume.compare(source, cfg, architecture)
    scheme = hasattr(getattr(target, "model", target), "attention_type")  # else no TIMESFORMER.*
    wrong = {
        key: values
        for key, values in bending.items()
        if (scheme and key.startswith("TIMESFORMER."))
        or key in ("MODEL.NUM_CLASSES", "DATA.MEAN", "DATA.STD", "DATA.REVERSE_INPUT_CHANNEL")
    }
    resume.refuse(path, wrong, "set these as in training to test it")


def _compare_preprocessing(cfg: CfgNode, path: str, source: Mapping[str, Any]) -> None:
    """Hold the pixels that weights expect against the config.

    Raises:
        ConfigError: a run of ours wrote otherwise. What is only known of a foreign layout as a
            rule, and another sampling of frames, is a warning.
    """
    differing = _differing(cfg, path, source.get("preprocessing"))
    if "architecture" in source:
        pixels = {KEYS[n]: differing[n] for n in PREPROCESSING_KEYS if n in differing}
        resume.refuse(path, pixels, "set these as in training to test it")
    for name, (theirs, ours) in differing.items():
        logger.warning(
            "%s was trained with %s %s, but the config says %s: set %s as in training, or scores "
            "will be too low",
            *(path, name, theirs, ours, KEYS[name]),
        )


def _differing(cfg: CfgNode, path: str | Path, trained: Any) -> dict[str, tuple[Any, Any]]:
    """Return what weights say of their input and the config says otherwise: (theirs, ours)."""
    if not trained:
        return {}
    try:
        said = Preprocessing.from_json(trained)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return said.differences(build_preprocessing(cfg, "test"))
