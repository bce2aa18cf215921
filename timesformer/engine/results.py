"""What a test found: scores with labels and paths, their metrics, and the files they are kept in.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timesformer.utils.files import write_csv, written_whole
from timesformer.utils.metrics import mean_average_precision, topk_correct


@dataclass(frozen=True)
class Results:
    """Scores of a split.

    Attributes:
        per_view: (V, n, K) logits, or the model's raw output; NaN where a video can't be read. None
            where views weren't kept.
        scores: (V, K) one row a video, after DATA.ENSEMBLE_METHOD.
        labels: (V,) true classes; (V, K) zeros and ones where videos have several.
        paths: V paths.
        failed: (V,) whether the video couldn't be read.
        views: n.
    """

    per_view: Tensor | None
    scores: Tensor
    labels: Tensor
    paths: list[str]
    failed: Tensor
    views: int = 1

    @property
    def readable(self) -> Results:
        """The same without the videos that couldn't be read."""
        keep = ~self.failed
        return Results(
            per_view=None if self.per_view is None else self.per_view[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            paths=[path for path, kept in zip(self.paths, keep, strict=True) if kept],
            failed=self.failed[keep],
            views=self.views,
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
    views = results.views if method == "sum" else 1
    logits = results.scores / views
    return logits.sigmoid() if results.labels.dim() == 2 else logits.softmax(dim=-1)


def set_aside_results(folder: Path, names: Sequence[str]) -> None:
    """Rename the files that a test will write, so that none of a former one is taken for its own.

    A test that fails leaves them as `NAME.before`; the next one replaces those.
    """
    for name in names:
        path = folder / name
        if path.is_file():
            path.replace(path.with_name(f"{path.name}.before"))


def save_results(
    path: Path,
    results: Results,
    class_names: Sequence[str],
    method: str,
    source: Mapping[str, str],
) -> None:
    """Write results, whole or not at all.

    `.npz`: scores (V, K), per_view (V, n, K), labels (V,) or (V, K), paths (V,), failed (V,),
    class_names (K,) or (0,), and what `source` says. `.csv`: a row a video with path, true label,
    the five likeliest classes with their probabilities, empty for a video that couldn't be read,
    and what `source` says.

    Args:
        path: the file; its folder is made.
        results: what is written.
        class_names: in label order, or ().
        method: DATA.ENSEMBLE_METHOD.
        source: the checkpoint's name and digest, by name.
    """
    make_folder(path.parent)
    if path.suffix == ".npz":
        assert results.per_view is not None
        with written_whole(path) as partial, partial.open("wb") as file:
            arrays: dict[str, Any] = {
                "scores": results.scores.numpy(),
                "per_view": results.per_view.numpy(),
                "labels": results.labels.numpy(),
                "paths": np.array(results.paths),
                "failed": results.failed.numpy(),
                "class_names": np.array(class_names, dtype=str),
            }
            np.savez(file, **arrays, **{name: np.array(value) for name, value in source.items()})
        return
    write_csv(path, _csv_rows(results, class_names, method, source))


def _csv_rows(
    results: Results, class_names: Sequence[str], method: str, source: Mapping[str, str]
) -> Iterator[list[str]]:
    k = min(5, results.scores.shape[1])
    values, classes = probabilities(results, method).topk(k)

    def name(label: int) -> str:
        return class_names[label] if class_names else str(label)

    header = [column for i in range(k) for column in (f"top{i + 1}", f"prob{i + 1}")]
    yield ["path", "label", "label_name", "failed", *header, *source]
    for i, video in enumerate(results.paths):
        truth = results.labels[i]
        labels = truth.nonzero()[:, 0].tolist() if truth.dim() else [int(truth)]
        row = [video, " ".join(map(str, labels)), "; ".join(map(name, labels))]
        if results.failed[i]:
            yield [*row, "yes", *[""] * len(header), *source.values()]
            continue
        pairs = zip(classes[i].tolist(), values[i].tolist(), strict=True)
        cells = [cell for c, p in pairs for cell in (name(c), f"{p:.4f}")]
        yield [*row, "", *cells, *source.values()]
