"""What a run says and makes sure of before its first step."""

from __future__ import annotations

from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from timesformer.datasets.lists.records import per_class
from timesformer.datasets.loader import VideoLoader
from timesformer.engine.multigrid import in_words
from timesformer.engine.provenance import record, short
from timesformer.engine.state import TrainState
from timesformer.engine.trace import digest, fingerprints
from timesformer.models.build import label, meta_model, view_shape
from timesformer.models.profiling import cost_table, count_parameters
from timesformer.utils.checkpoint import bare, set_aside_checkpoints
from timesformer.utils.distributed import is_main
from timesformer.utils.logging import get_logger, log_json_stats
from timesformer.utils.text import counted

logger = get_logger(__name__)


def part_from_former_run(cfg: CfgNode, goes_on: bool) -> None:
    """Put a former run's checkpoints out of the way of one that starts in the same folder.

    Else a test, or a run that goes on after an interruption, would take the newest of both. The one
    that this run goes on from, if it does, stays.
    """
    source = cfg.TRAIN.CHECKPOINT_FILE_PATH if goes_on else ""
    folder = set_aside_checkpoints(cfg.OUTPUT_DIR, source) if is_main() else None
    if folder:
        logger.warning(
            "%s holds a former run's checkpoints: this run %s, so they are in %s now",
            *(cfg.OUTPUT_DIR, f"goes on from {source}" if goes_on else "starts over", folder),
        )


def write_down(state: TrainState) -> None:
    """Write where the run's numbers come from: environment.json, and the head of its trace."""
    model = bare(state.model).state_dict()
    prints = fingerprints(model) if is_main() else []
    weights = {"source": state.source, "sha256": digest(prints)}
    start = {
        "first": [state.epoch, state.step],
        "resumed": state.resumed,
        "lists": {"train": state.train_list, "val": state.val_list},
    }
    facts = record(state.cfg, "train", **start, weights=weights)
    state.environment = short(facts)
    if state.trace:
        state.trace.begin(
            {
                "start": facts["started"],
                "config": state.cfg.dump(),
                **start,
                "source": state.source,
                "layout": state.layout._asdict(),
                "tensors": list(model),
                "weights": prints,
            }
        )


def log_start(state: TrainState, loader: VideoLoader, counts: np.ndarray) -> None:
    """Say what is about to run: model, data and how the global batch is made.

    Args:
        state: the run.
        loader: of the training videos.
        counts: of them in each class (K,).
    """
    cfg, layout = state.cfg, state.layout
    for line in in_words(loader.steps, layout):
        logger.info("TRAIN.MULTIGRID %s: %s", cfg.TRAIN.MULTIGRID, line)
    if said := state.tubes.in_words(cfg.DATA.TRAIN_CROP_SIZE):
        logger.info("%s", said)
    if cfg.LOG_MODEL_INFO and is_main():
        logger.info("%s", cost_table(label(cfg), meta_model(cfg), view_shape(cfg)))
    stats: dict[str, Any] = {
        "split": "start",
        "model": label(cfg),
        "params": count_parameters(state.model),
        "trained_params": sum(p.numel() for p in state.model.parameters() if p.requires_grad),
        "train_videos": len(loader.dataset),
        "data_fraction": cfg.DATA.FRACTION,
        "tube_keep": cfg.TRAIN.TUBE_KEEP,
        "multigrid": cfg.TRAIN.MULTIGRID,
        "videos_per_class": dict(zip(("min", "median", "max"), per_class(counts), strict=True)),
        "device": str(state.device),
        "global_batch": layout.global_batch,
        "ranks": layout.ranks,
        "clips_per_rank": layout.per_rank,
        "accumulation": layout.accumulation,
        "first_epoch": state.epoch + 1,
        "first_step": state.step + 1,
        "resumed": state.resumed,
    }
    if state.resumed_anyway:
        stats["resumed_anyway"] = [dict(said) for said in state.resumed_anyway]
    logger.info(
        "global batch %d = %s × %s × %s",
        layout.global_batch,
        counted(layout.ranks, "rank"),
        counted(layout.per_rank, "clip"),
        counted(layout.accumulation, "forward pass", "forward passes"),
    )
    log_json_stats(stats, cfg.OUTPUT_DIR)
