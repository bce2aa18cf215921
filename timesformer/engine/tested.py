"""The weights that are tested, and whether they are what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode
from torch import nn

from timesformer.clips.preprocessing import KEYS
from timesformer.engine import resume
from timesformer.engine.agreement import (
    architecture_of,
    compare_ranks,
    differing_input,
    invented_weights,
    resizing,
)
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.said import PREPROCESSING_KEYS
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import (
    bare,
    check_name,
    get_last_checkpoint,
    get_path_to_best,
)
from timesformer.utils.distributed import from_main, is_main, together
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.files import RUN_HOLDS, is_in_parts
from timesformer.utils.logging import get_logger
from timesformer.utils.torch_file import stored_digest

logger = get_logger(__name__)


class TestWeights(NamedTuple):
    """The weights that are tested."""

    path: str
    digest: str  # SHA-256 that the file carries, or ""
    class_names: tuple[str, ...]  # as in training, or ()


def load_test_checkpoint(cfg: CfgNode, model: nn.Module) -> TestWeights:
    """Load the weights to test.

    They are TEST.CHECKPOINT_FILE_PATH, a file or the folder of a run, else the checkpoint in
    OUTPUT_DIR that TEST.CHECKPOINT says, else TRAIN.CHECKPOINT_FILE_PATH. The main process chooses.
    Nothing is ever tested with weights that training didn't make.

    Raises:
        WeightsError: if there are none, or they don't give every weight of the model.
        ConfigError: they are of another model than the config's, or take another input.
    """
    path = from_main(together(lambda: choose_tested(cfg) if is_main() else ""))
    if not path:
        raise WeightsError(
            f"nothing to test: OUTPUT_DIR {cfg.OUTPUT_DIR} has no checkpoint ({RUN_HOLDS}); set "
            "TEST.CHECKPOINT_FILE_PATH to a checkpoint or a run's folder, or train first "
            "(`timesformer train`)"
        )
    weights = together(lambda: _load(cfg, model, path))
    compare_ranks(model)
    return weights


def choose_tested(cfg: CfgNode) -> str:
    """Return the file that is tested, "" for none.

    Raises:
        WeightsError: what was asked for isn't there.
    """
    asked = cfg.TEST.CHECKPOINT_FILE_PATH
    if asked and (not Path(asked).is_dir() or is_in_parts(asked)):
        return asked
    run = asked or cfg.OUTPUT_DIR
    if cfg.TEST.CHECKPOINT == "best":
        best = get_path_to_best(run)
        if not best.exists():
            raise WeightsError(
                f"TEST.CHECKPOINT best: {best} isn't there, since no epoch was validated; set it "
                "to last"
            )
        return str(best)
    if last := get_last_checkpoint(run):
        return str(last)
    # A folder without checkpoints may be a saved model.
    return asked or cfg.TRAIN.CHECKPOINT_FILE_PATH


def _load(cfg: CfgNode, model: nn.Module, path: str) -> TestWeights:
    content = read_weights(path, cfg.TEST.WEIGHTS)
    if path != cfg.TEST.CHECKPOINT_FILE_PATH:
        check_name(Path(path), content)
    _compare_model(cfg, path, content, model)
    _compare_input(cfg, path, content)
    report = load_pretrained(bare(model), content, **resizing(cfg), name=str(path))
    if invented := invented_weights(report):
        raise WeightsError(
            f"{path}: not a checkpoint of this model: it lacks {len(invented)} weights "
            f"({', '.join(invented[:5])}, …); check TIMESFORMER.ATTENTION_TYPE and "
            "MODEL.NUM_CLASSES, or train first"
        )
    logger.info("testing %s (TEST.WEIGHTS %s)", path, cfg.TEST.WEIGHTS)
    names = tuple(content.get("class_names") or ())
    return TestWeights(str(path), stored_digest(path), names)


def _compare_model(cfg: CfgNode, path: str, content: Mapping[str, Any], model: nn.Module) -> None:
    """Hold what the file says of its model against the config's; weights alone may fit both."""
    if other := resume.other_model(content, cfg, architecture_of(cfg, model)):
        raise ConfigError(
            f"{path} is of another model than the config's ({', '.join(resume.in_words(other))}): "
            f"set these back, or take the config that it was trained with, --cfg {path}"
        )


def _compare_input(cfg: CfgNode, path: str, content: Mapping[str, Any]) -> None:
    """Hold the pixels and frames that the weights expect against those of the config."""
    differing = differing_input(cfg, path, content.get("preprocessing"))
    statistics = {n: v for n, v in differing.items() if n in PREPROCESSING_KEYS}
    if statistics and "architecture" in content:  # a file of ours: what it says it was trained with
        changes = {KEYS[name]: values for name, values in statistics.items()}
        raise ConfigError(
            f"{path} was trained on other pixels than the config's "
            f"({', '.join(resume.in_words(changes))}): set these as in training"
        )
    for name, (theirs, ours) in differing.items():
        say = logger.info if name in ("short_side", "crop_size") else logger.warning
        say(
            "%s was trained with %s %s, and is tested with %s; as in training is %s %s",
            *(path, name, theirs, ours, KEYS[name], theirs),
        )
