"""What a test found: scores with labels and paths, their metrics, and the files they are kept in.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from timesformer.utils.metrics import mean_average_precision, topk_correct


@dataclass(frozen=True)
class Results:
    """Scores of a split.

    Attributes:
        per_view: (V, n, K) logits, or the model's raw output; NaN where a video can't be read.
        scores: (V, K) one row a video, after DATA.ENSEMBLE_METHOD.
        labels: (V,) true classes; (V, K) zeros and ones where videos have several.
        paths: V paths.
        failed: (V,) whether the video couldn't be read.
    """

    per_view: Tensor
    scores: Tensor
    labels: Tensor
    paths: list[str]
    failed: Tensor

    @property
    def readable(self) -> Results:
        """The same without the videos that couldn't be read."""
        keep = ~self.failed
        return Results(
            per_view=self.per_view[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            paths=[path for path, kept in zip(self.paths, keep, strict=True) if kept],
            failed=self.failed[keep],
        )

    def accuracy(self, k: int) -> float:
        """Top-k accuracy in percent; a video that couldn't be read is wrong.

        With fewer than k classes every other video counts as right; of several labels one does.
        """
        return 100.0 * topk_correct(self.scores, self.labels, (k,))[0] / max(len(self.labels), 1)

    def mean_average_precision(self) -> float:
        """MAP in percent; a video that couldn't be read comes last for every class."""
        return mean_average_precision(self.scores.nan_to_num(nan=-torch.inf), self.labels)

    def metrics(self) -> dict[str, float]:
        """Percentages by name: map for several labels, else top1_acc and top5_acc."""
        if self.labels.dim() == 2:
            return {"map": self.mean_average_precision()}
        return {"top1_acc": self.accuracy(1), "top5_acc": self.accuracy(5)}

    def report(self) -> dict[str, float | int]:
        """Return the metrics over all videos, and if some couldn't be read, over the others too."""
        stats: dict[str, float | int] = dict(self.metrics())
        stats |= {"videos": len(self.labels), "failed_videos": int(self.failed.sum())}
        if stats["failed_videos"]:
            stats |= {f"{name}_readable": x for name, x in self.readable.metrics().items()}
        return stats


def ensemble(per_view: Tensor, method: str, multi_label: bool = False) -> Tensor:
    """Join the scores of a video's views: (V, n, K) -> (V, K).

    "sum" of logits is what the published code does, "prob" (averaged softmax; sigmoid with several
    labels) what the paper says; "max" takes the largest logit of any view.

    Raises:
        ValueError: for another method.
    """
    if method == "sum":
        return per_view.sum(dim=1)
    if method == "max":
        return per_view.amax(dim=1)
    if method == "prob":
        return (per_view.sigmoid() if multi_label else per_view.softmax(dim=-1)).mean(dim=1)
    raise ValueError(f"unknown ensemble method {method!r}: sum, max or prob")


def probabilities(results: Results, method: str) -> Tensor:
    """Class probabilities (V, K) that rank classes as the scores do."""
    if method == "prob":
        return results.scores
    views = results.per_view.shape[1] if method == "sum" else 1
    logits = results.scores / views
    return logits.sigmoid() if results.labels.dim() == 2 else logits.softmax(dim=-1)


def save_results(path: Path, results: Results, class_names: Sequence[str], method: str) -> None:
    """Write results.

    `.npz`: scores (V, K), per_view (V, n, K), labels (V,) or (V, K), paths (V,), failed (V,),
    class_names (K,) or (0,). `.csv`: a row a video with path, true label, the five likeliest
    classes with their probabilities; empty for a video that couldn't be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(
            path,
            scores=results.scores.numpy(),
            per_view=results.per_view.numpy(),
            labels=results.labels.numpy(),
            paths=np.array(results.paths),
            failed=results.failed.numpy(),
            class_names=np.array(class_names, dtype=str),
        )
        return
    k = min(5, results.scores.shape[1])
    values, classes = probabilities(results, method).topk(k)

    def name(label: int) -> str:
        return class_names[label] if class_names else str(label)

    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        header = [column for i in range(k) for column in (f"top{i + 1}", f"prob{i + 1}")]
        writer.writerow(["path", "label", "label_name", "failed", *header])
        for i, video in enumerate(results.paths):
            truth = results.labels[i]
            labels = truth.nonzero()[:, 0].tolist() if truth.dim() else [int(truth)]
            row = [video, " ".join(map(str, labels)), "; ".join(map(name, labels))]
            if results.failed[i]:
                writer.writerow([*row, "yes", *[""] * len(header)])
                continue
            pairs = zip(classes[i].tolist(), values[i].tolist(), strict=True)
            cells = [cell for c, p in pairs for cell in (name(c), f"{p:.4f}")]
            writer.writerow([*row, "", *cells])
