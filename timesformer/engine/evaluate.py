"""Validation and multi-view testing.

A video that can't be read is never replaced: metrics are given with it counted as wrong, and
without it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.config.layout import per_rank
from timesformer.datasets.build import build_views
from timesformer.datasets.loader import VideoLoader, construct_loader
from timesformer.datasets.workers import worker_errors
from timesformer.engine.broken import FILE_NAME, BrokenVideos
from timesformer.engine.ema import PREFIX
from timesformer.engine.memory import memory_errors
from timesformer.engine.provenance import record
from timesformer.engine.results import (
    Results,
    name_before,
    result_files,
    save_results,
    tested_settings,
)
from timesformer.engine.resume import list_digest
from timesformer.engine.scope import run_scope
from timesformer.engine.scoring import SideBySide, Table, score_videos
from timesformer.engine.sharding import whole_models
from timesformer.engine.tested import TestWeights, load_test_checkpoint
from timesformer.models.build import build_model, meta_model, view_shape
from timesformer.models.compiling import compile_blocks
from timesformer.models.profiling import count_macs
from timesformer.utils.checkpoint import bare
from timesformer.utils.distributed import (
    buffers_from_main,
    device_for,
    from_main,
    get_world,
    is_main,
    same_everywhere,
    together,
)
from timesformer.utils.errors import TrainingError, UserError
from timesformer.utils.logging import get_logger, log_json_stats

logger = get_logger(__name__)


def collect(table: Table, loader: VideoLoader, broken: BrokenVideos) -> Results:
    """Put labels and paths beside scores."""
    dataset = loader.dataset
    failed = torch.zeros(len(dataset), dtype=torch.bool)
    failed[broken.failed] = True
    return Results(
        table.per_view,
        table.scores,
        torch.stack([torch.as_tensor(dataset.target(r.label)) for r in dataset.records]),
        [record.path for record in dataset.records],
        failed,
        dataset.num_views,
    )


def eval_epoch(
    cfg: CfgNode,
    model: nn.Module,
    loader: VideoLoader,
    epoch: int,
    broken: BrokenVideos | None = None,
    average: nn.Module | None = None,
) -> dict[str, Any]:
    """Validate on one deterministic centre view of each video; return and log the metrics.

    Videos are decoded once, whether or not there is an average too.

    Args:
        cfg: the config.
        model: maps clips (B, 3, T, H, W) to (B, K).
        loader: validation loader of this rank.
        epoch: from 0.
        broken: lists videos that can't be read; the one of former epochs tells no video twice.
        average: the moving average of the model, whose metrics are named `ema_…`.
    """
    models = [bare(model), *([average] if average else [])]
    for one in models:
        buffers_from_main(one)  # statistics of BatchNorm, which each rank has of its own clips
    broken = broken or BrokenVideos(cfg.OUTPUT_DIR, "val", len(loader.dataset))
    broken.start_over()
    with whole_models(models):
        table = score_videos(
            SideBySide(models),
            loader,
            device_for(cfg),
            broken,
            num_classes=len(models) * cfg.MODEL.NUM_CLASSES,
            clips=per_rank(cfg, "TRAIN", get_world().local_size),
            keep_views=False,
            amp=cfg.TRAIN.AMP,
            desc=f"validation {epoch + 1}",
        )
    return from_main(_report_validation(cfg, table, loader, broken, epoch))


def _report_validation(
    cfg: CfgNode, table: Table | None, loader: VideoLoader, broken: BrokenVideos, epoch: int
) -> dict[str, Any]:
    if table is None:
        return {}  # the main process has them
    classes = cfg.MODEL.NUM_CLASSES
    results, *averaged = (
        collect(Table(scores, None), loader, broken) for scores in table.scores.split(classes, 1)
    )
    if videos := [video for one in (results, *averaged) for video in one.overflowed]:
        logger.warning("%s; this epoch can't be the best one", _overflow(videos, "TRAIN.AMP"))
    loss = (
        nn.functional.binary_cross_entropy_with_logits
        if cfg.DATA.MULTI_LABEL
        else nn.functional.cross_entropy
    )

    def said(found: Results) -> dict[str, float | int]:
        readable = found.readable
        return found.report() | {"loss": float(loss(readable.scores, readable.labels))}

    counts = {"classes", "videos", "failed_videos"}  # said once
    stats = {
        "split": "val",
        "epoch": f"{epoch + 1}/{cfg.SOLVER.MAX_EPOCH}",
        **said(results),
        **{f"{PREFIX}{n}": x for one in averaged for n, x in said(one).items() if n not in counts},
        "views": "1x1",
        "protocol": "centre clip, centre crop",
        "list": list_digest(loader.dataset.records)[:12],
    }
    if videos:
        stats["overflowed_videos"] = len(set(videos))
    log_json_stats(stats, cfg.OUTPUT_DIR)
    return stats


def perform_test(
    cfg: CfgNode, model: nn.Module, loader: VideoLoader, broken: BrokenVideos | None = None
) -> Results | None:
    """Multi-view test: TEST.NUM_ENSEMBLE_VIEWS clips × TEST.NUM_SPATIAL_CROPS crops a video.

    Returns:
        The results, in the main process; None in the others. `per_view` is None unless a .npz is
        asked for: HowTo100M's 35,000 videos × 48 views × 1,059 classes would take 6.6 GiB.
    """
    broken = broken or BrokenVideos(cfg.OUTPUT_DIR, "test", len(loader.dataset))
    table = score_videos(
        model,
        loader,
        device_for(cfg),
        broken,
        num_classes=cfg.MODEL.NUM_CLASSES,
        clips=per_rank(cfg, "TEST", get_world().local_size),
        method=cfg.DATA.ENSEMBLE_METHOD,
        keep_views=any(path.suffix == ".npz" for path in result_files(cfg)),
        amp=cfg.TEST.AMP,
    )
    return None if table is None else collect(table, loader, broken)


def test(cfg: CfgNode) -> Results | None:
    """Test a checkpoint as the config says and write what TEST.SAVE_RESULTS_PATH asks for.

    Returns:
        The results, in the main process; None in the others.

    Raises:
        WeightsError: if there are no trained weights for this model.
        ConfigError: if they are another model's than the config's.
        TrainingError: if no video can be read, or scores are not finite; memory doesn't suffice; or
            a process that reads has ended. Nothing is written.
        AnnotationError: if more than DATA.MAX_FAILED can't; scores and metrics are there.
    """
    with run_scope(cfg), memory_errors(cfg, "TEST"):
        return _test(cfg)


def _test(cfg: CfgNode) -> Results | None:
    loader = together(lambda: construct_loader(cfg, "test"))
    same_everywhere("list of test videos", lambda: list_digest(loader.dataset.records))
    model = build_model(cfg, training=False)
    weights = load_test_checkpoint(cfg, model)
    class_names = _agree(loader.dataset.class_names, weights)
    if cfg.TEST.COMPILE:
        together(lambda: compile_blocks("TEST.COMPILE", model))
    broken = BrokenVideos(cfg.OUTPUT_DIR, "test", len(loader.dataset), cfg.DATA.MAX_FAILED)
    together(lambda: _rename_former_results(cfg))
    source = {"source": weights.path, "sha256": weights.digest, "weights": cfg.TEST.WEIGHTS}
    videos = {"test": list_digest(loader.dataset.records)}
    record(cfg, "test", lists=videos, weights=source)
    start = time.perf_counter()
    with worker_errors(loader):
        results = perform_test(cfg, model, loader, broken)
    seconds = time.perf_counter() - start
    together(lambda: _report_test(cfg, results, weights, class_names, seconds))
    broken.check_failed()  # all that was found is written by now
    return results


def _report_test(
    cfg: CfgNode,
    results: Results | None,
    weights: TestWeights,
    class_names: tuple[str, ...],
    seconds: float,
) -> None:
    """Write and log what a test found, and in which time, from the main process, which has it."""
    if results is None:
        return
    if videos := results.overflowed:
        raise TrainingError(f"{weights.path}: {_overflow(videos, 'TEST.AMP')}")
    _save(cfg, results, class_names, weights)
    stats = {
        "split": "test_final",
        **results.report(),
        **tested_settings(cfg),
        "checkpoint": weights.path,
        "checkpoint_sha256": weights.digest,
        "seconds": seconds,  # reading videos and all
        "videos_per_s": len(results.labels) / seconds,
    }
    if cfg.LOG_MODEL_INFO:
        macs = count_macs(meta_model(cfg), view_shape(cfg))
        stats["gmacs_per_video"] = build_views(cfg, "test").num_views * macs / 1e9
    if results.failed.any():
        logger.warning(
            "%d of %d videos couldn't be read (listed in %s): all metrics count "
            "them as wrong, those with _readable leave them out",
            int(results.failed.sum()),
            len(results.failed),
            Path(cfg.OUTPUT_DIR) / FILE_NAME,
        )
    log_json_stats(stats, cfg.OUTPUT_DIR)


def _overflow(videos: Sequence[str], amp: str) -> str:
    return (
        f"the scores of {len(videos)} videos are not finite, that of {videos[0]} first: the "
        f"weights have grown too large, or {amp} can't hold what they make (set it to none or bf16)"
    )


def _rename_former_results(cfg: CfgNode) -> None:
    """Rename a former test's files: should this one fail, they mustn't pass for its own.

    Raises:
        UserError: they can't be renamed.
    """
    for path in result_files(cfg):
        if is_main() and path.exists():
            before = name_before(path)
            try:
                path.replace(before)
            except OSError as error:
                raise UserError(f"{path}: can't be renamed ({error.strerror})") from error
            logger.info("a former test's %s is %s now", path, before.name)


def _save(
    cfg: CfgNode, results: Results, class_names: tuple[str, ...], weights: TestWeights
) -> None:
    """Write what TEST.SAVE_RESULTS_PATH asks for.

    Raises:
        UserError: a file can't be written.
    """
    for path in result_files(cfg):
        source = (weights.path, weights.digest)
        try:
            save_results(path, results, class_names, cfg.DATA.ENSEMBLE_METHOD, source, cfg.dump())
        except OSError as error:
            raise UserError(
                f"{path}: the scores can't be written ({error.strerror}); test again, with space "
                "for them (TEST.SAVE_RESULTS_PATH)"
            ) from error
        logger.info("wrote %s", path)


def _agree(class_names: tuple[str, ...], weights: TestWeights) -> tuple[str, ...]:
    """Return the data set's class names, or those that the checkpoint was trained with."""
    if class_names and weights.class_names and class_names != weights.class_names:
        pairs = list(zip(class_names, weights.class_names, strict=False))
        differ = [i for i, (ours, theirs) in enumerate(pairs) if ours != theirs]
        logger.warning(
            "%s was trained on other class names, or in another order (%d differ): are the "
            "labels those of training?",
            weights.path,
            len(differ) or abs(len(class_names) - len(weights.class_names)),
        )
    return class_names or weights.class_names
