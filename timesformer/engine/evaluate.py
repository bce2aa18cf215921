"""Validation and multi-view testing.

Every score is filed under its (video, view) index: order, batching and the number of ranks can't
change a result, and a view that is missing or scored twice is an error.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

import csv
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.datasets.loader import VideoLoader, construct_loader
from timesformer.engine.state import load_test_weights
from timesformer.models.build import build_model
from timesformer.utils.checkpoint import bare
from timesformer.utils.distributed import all_reduce_sum, device_for, get_world, is_main
from timesformer.utils.errors import TrainingError
from timesformer.utils.logging import get_logger, log_json_stats, progress, setup_logging
from timesformer.utils.metrics import topk_correct

logger = get_logger(__name__)

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Mixed precision as TRAIN.AMP / TEST.AMP name it: none, bf16 or fp16."""
    return torch.autocast(device.type, AMP_TYPES.get(amp), enabled=amp in AMP_TYPES)


@dataclass(frozen=True)
class Results:
    """Scores of a split.

    Attributes:
        per_view: (V, n, K) logits, or the model's raw output.
        scores: (V, K) one row a video, after DATA.ENSEMBLE_METHOD.
        labels: (V,) true classes.
        paths: V paths.
    """

    per_view: Tensor
    scores: Tensor
    labels: Tensor
    paths: list[str]

    def accuracy(self, k: int) -> float:
        """Top-k accuracy in percent; with fewer than k classes, every video counts as right."""
        return 100.0 * topk_correct(self.scores, self.labels, (k,))[0] / len(self.labels)


def ensemble(per_view: Tensor, method: str) -> Tensor:
    """Joins the scores of a video's views: (V, n, K) -> (V, K).

    "sum" of logits is what the published code does, "prob" (averaged softmax) what the paper says;
    "max" takes the largest logit of any view.

    Raises:
        ValueError: for another method.
    """
    if method == "sum":
        return per_view.sum(dim=1)
    if method == "max":
        return per_view.amax(dim=1)
    if method == "prob":
        return per_view.softmax(dim=-1).mean(dim=1)
    raise ValueError(f"unknown ensemble method {method!r}: sum, max or prob")


@torch.no_grad()
def score_videos(
    model: nn.Module,
    loader: VideoLoader,
    device: torch.device,
    *,
    num_classes: int,
    clips: int,
    amp: str = "none",
    desc: str = "test",
) -> Tensor:
    """Scores every view of every video, each rank its share: (V, n, K) on every rank.

    Args:
        model: maps clips (B, 3, T, H, W) to (B, K).
        loader: evaluation loader of this rank.
        device: where the model lives.
        num_classes: K.
        clips: clips in one forward pass.
        amp: see `autocast`.
        desc: name on the progress bar.

    Raises:
        TrainingError: if a view was not scored exactly once.
    """
    model = bare(model).eval()
    dataset = loader.dataset
    scores = torch.zeros(len(dataset), dataset.num_views, num_classes)
    times_seen = torch.zeros(len(dataset), dataset.num_views)
    for inputs, _, index, meta in progress(loader, desc=desc, total=len(loader)):
        with autocast(device, amp):
            parts = [model(x.to(device, non_blocking=True)).float() for x in inputs.split(clips)]
        scores[index, meta["view"]] = torch.cat(parts).cpu()
        times_seen[index, meta["view"]] += 1
    # Each row is non-zero on one rank only, so the sum is exact.
    scores = all_reduce_sum(scores.to(device)).cpu()
    times_seen = all_reduce_sum(times_seen.to(device)).cpu()
    if not bool((times_seen == 1).all()):
        video, view = (times_seen != 1).nonzero()[0].tolist()
        raise TrainingError(
            f"{dataset.records[video].path}: view {view} was scored "
            f"{int(times_seen[video, view])} times instead of once"
        )
    return scores


def collect(per_view: Tensor, loader: VideoLoader, method: str) -> Results:
    """Joins views and puts labels and paths beside them."""
    records = loader.dataset.records
    labels = torch.tensor([record.label for record in records])
    return Results(per_view, ensemble(per_view, method), labels, [str(r.path) for r in records])


def eval_epoch(cfg: CfgNode, model: nn.Module, loader: VideoLoader, epoch: int) -> dict[str, Any]:
    """Validates on one deterministic centre view of each video; returns and logs the metrics."""
    per_view = score_videos(
        model,
        loader,
        device_for(cfg),
        num_classes=cfg.MODEL.NUM_CLASSES,
        clips=cfg.TRAIN.BATCH_SIZE // get_world().local_size,
        amp=cfg.TRAIN.AMP,
        desc=f"validation {epoch + 1}",
    )
    results = collect(per_view, loader, "sum")
    loss = nn.functional.cross_entropy(results.scores, results.labels)
    stats = {
        "split": "val",
        "epoch": f"{epoch + 1}/{cfg.SOLVER.MAX_EPOCH}",
        "top1_acc": results.accuracy(1),
        "top5_acc": results.accuracy(5),
        "loss": float(loss),
        "views": "1x1",
        "protocol": "centre clip, centre crop",
        "videos": len(results.labels),
    }
    log_json_stats(stats, cfg.OUTPUT_DIR)
    return stats


def perform_test(cfg: CfgNode, model: nn.Module, loader: VideoLoader) -> Results:
    """Multi-view test: TEST.NUM_ENSEMBLE_VIEWS clips × TEST.NUM_SPATIAL_CROPS crops a video."""
    per_view = score_videos(
        model,
        loader,
        device_for(cfg),
        num_classes=cfg.MODEL.NUM_CLASSES,
        clips=cfg.TEST.BATCH_SIZE // get_world().local_size,
        amp=cfg.TEST.AMP,
    )
    return collect(per_view, loader, cfg.DATA.ENSEMBLE_METHOD)


def test(cfg: CfgNode) -> Results:
    """Tests a checkpoint as the config says and writes what TEST.SAVE_RESULTS_PATH asks for.

    Raises:
        WeightsError: if there are no trained weights for this model.
        VideoError: if a video can't be read.
    """
    setup_logging(cfg.OUTPUT_DIR)
    loader = construct_loader(cfg, "test")
    model = build_model(cfg)
    checkpoint = load_test_weights(cfg, model)
    results = perform_test(cfg, model, loader)
    if is_main():
        for name in filter(None, cfg.TEST.SAVE_RESULTS_PATH.replace(" ", "").split(",")):
            path = Path(cfg.OUTPUT_DIR) / name
            save_results(path, results, loader.dataset.class_names, cfg.DATA.ENSEMBLE_METHOD)
            logger.info("wrote %s", path)
    stats = {
        "split": "test_final",
        "top1_acc": results.accuracy(1),
        "top5_acc": results.accuracy(5),
        "views": f"{cfg.TEST.NUM_ENSEMBLE_VIEWS}x{cfg.TEST.NUM_SPATIAL_CROPS}",
        "videos": len(results.labels),
        "ensemble": cfg.DATA.ENSEMBLE_METHOD,
        "clip_sampling": cfg.DATA.TEST_CLIP_SAMPLING,
        "checkpoint": checkpoint,
    }
    log_json_stats(stats, cfg.OUTPUT_DIR)
    return results


def probabilities(results: Results, method: str) -> Tensor:
    """Class probabilities (V, K) that rank classes as the scores do."""
    if method == "prob":
        return results.scores
    views = results.per_view.shape[1] if method == "sum" else 1
    return (results.scores / views).softmax(dim=-1)


def save_results(path: Path, results: Results, class_names: Any, method: str) -> None:
    """Writes results.

    `.npz`: scores (V, K), per_view (V, n, K), labels (V,), paths (V,). `.csv`: a row a video with
    path, true label and the five likeliest classes with their probabilities.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(
            path,
            scores=results.scores.numpy(),
            per_view=results.per_view.numpy(),
            labels=results.labels.numpy(),
            paths=np.array(results.paths),
        )
        return
    k = min(5, results.scores.shape[1])
    values, classes = probabilities(results, method).topk(k)

    def name(label: int) -> str:
        return class_names[label] if class_names else str(label)

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = [column for i in range(k) for column in (f"top{i + 1}", f"prob{i + 1}")]
        writer.writerow(["path", "label", "label_name", *header])
        rows = zip(results.paths, results.labels.tolist(), classes.tolist(), values.tolist(),
                   strict=True)  # fmt: skip
        for video, label, best, probability in rows:
            pairs = zip(best, probability, strict=True)
            cells = [cell for c, p in pairs for cell in (name(c), f"{p:.4f}")]
            writer.writerow([video, label, name(label), *cells])
