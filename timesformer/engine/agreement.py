"""Whether given weights fit: what those to start from and those to test have to answer alike."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.clips.preprocessing import Preprocessing
from timesformer.datasets.build import build_preprocessing
from timesformer.models.architecture import Architecture
from timesformer.models.weights.load import LoadReport
from timesformer.utils.checkpoint import bare
from timesformer.utils.distributed import other_rank
from timesformer.utils.errors import WeightsError
from timesformer.utils.tensors import raw_bytes


def architecture_of(cfg: CfgNode, model: nn.Module) -> Architecture:
    """Return what a model is made of; one that doesn't know it is as the config says."""
    return getattr(bare(model), "architecture", None) or Architecture.from_cfg(cfg)


def differing_input(cfg: CfgNode, path: str | Path, trained: Any) -> dict[str, tuple[Any, Any]]:
    """Return what weights say of their input and the config says otherwise: (theirs, ours)."""
    if not trained:
        return {}
    try:
        said = Preprocessing.from_json(trained)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return said.differences(build_preprocessing(cfg, "test"))


def compare_ranks(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    average: nn.Module | None = None,
) -> None:
    """Hold the ranks' weights against each other.

    Args:
        model: has them.
        optimizer: what it has gathered is compared too.
        average: so is the moving average of the weights.

    Raises:
        WeightsError: they differ, e.g. because nodes have other files under the same name.
    """
    if (other := other_rank(lambda: _digest(model, optimizer, average))) is not None:
        raise WeightsError(
            f"rank {other} has loaded other weights than rank 0: OUTPUT_DIR and the files of "
            "TRAIN.CHECKPOINT_FILE_PATH, TEST.CHECKPOINT_FILE_PATH and "
            "TIMESFORMER.PRETRAINED_MODEL must be the same on all nodes"
        )


def _digest(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, average: nn.Module | None
) -> str:
    """Return the SHA-256 of weights, of what an optimizer has gathered, and of an average."""
    digest = hashlib.sha256()
    states = optimizer.state.values() if optimizer else ()
    gathered = [value for kept in states for value in kept.values()]
    averaged = average.state_dict().values() if average else ()
    for tensor in (*bare(model).state_dict().values(), *gathered, *averaged):
        if isinstance(tensor, torch.Tensor):
            digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def invented_weights(report: LoadReport) -> list[str]:
    """Return the weights that a file of this very model would have given."""
    invented = [*report.missing, *report.copied, *report.zeroed]
    return invented + [name for name in report.resized if name.startswith("patch_embed")]


def resizing(cfg: CfgNode) -> dict[str, str]:
    """How weights of other sizes are fitted: arguments of `load_pretrained`."""
    return {
        "pos_embed_resize": cfg.TIMESFORMER.POS_EMBED_RESIZE,
        "time_embed_resize": cfg.TIMESFORMER.TIME_EMBED_RESIZE,
        "tubelet_init": cfg.TIMESFORMER.TUBELET_INIT,
    }
