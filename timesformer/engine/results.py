"""What a test found: scores with labels and paths, their metrics, and the files they are kept in.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from timesformer.clips.ensemble import probabilities
from timesformer.utils.files import make_folder, write_csv
from timesformer.utils.metrics import (
    mean_average_precision,
    mean_class_accuracy,
    topk_correct,
)
from timesformer.utils.npz import write_npz


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

    @property
    def overflowed(self) -> list[str]:
        """Paths of the videos that could be read, and of which the model made no finite scores."""
        wrong = ~self.failed & ~self.scores.isfinite().all(1)
        return [path for path, is_wrong in zip(self.paths, wrong, strict=True) if is_wrong]

    def accuracy(self, k: int) -> float:
        """Top-k accuracy in percent; a video that couldn't be read is wrong.

        With fewer than k classes every other video counts as right; of several labels one does.
        """
        return 100.0 * topk_correct(self.scores, self.labels, (k,))[0] / max(len(self.labels), 1)

    def mean_average_precision(self) -> float:
        """MAP in percent; a video that couldn't be read comes last for every class."""
        return mean_average_precision(self.scores.nan_to_num(nan=-torch.inf), self.labels)

    def metrics(self) -> dict[str, float]:
        """Percentages by name: map for several labels, else top-1, top-5 and mean-class accuracy.

        The last is the mean over the classes that have a video of their top-1.
        """
        if self.labels.dim() == 2:
            return {"map": self.mean_average_precision()}
        return {
            "top1_acc": self.accuracy(1),
            "top5_acc": self.accuracy(5),
            "mean_class_acc": mean_class_accuracy(self.scores, self.labels),
        }

    def report(self) -> dict[str, float | int]:
        """Return the metrics over all videos, and if some couldn't be read, over the others too.

        Beside them stands of how many classes there are videos, of one label each.
        """
        stats: dict[str, float | int] = dict(self.metrics())
        if self.labels.dim() == 1:
            stats["classes"] = len(self.labels.unique())
        stats |= {"videos": len(self.labels), "failed_videos": int(self.failed.sum())}
        if stats["failed_videos"]:
            stats |= {f"{name}_readable": x for name, x in self.readable.metrics().items()}
        return stats


def result_files(cfg: CfgNode) -> list[Path]:
    """Return the files that TEST.SAVE_RESULTS_PATH asks for."""
    names = (name.strip() for name in cfg.TEST.SAVE_RESULTS_PATH.split(","))
    return [Path(cfg.OUTPUT_DIR) / name for name in names if name]


def tested_data(cfg: CfgNode) -> str:
    """Return what people call the data of a test: the data set, and the folder that it is in."""
    return f"{cfg.TEST.DATASET} {Path(cfg.DATA.PATH_TO_DATA_DIR).name}".strip()


def tested_settings(cfg: CfgNode) -> dict[str, str | int]:
    """Return what a test's line in stats.jsonl says of the settings that it was made with."""
    return {
        "data": tested_data(cfg),
        "weights": cfg.TEST.WEIGHTS,
        "views": f"{cfg.TEST.NUM_ENSEMBLE_VIEWS}x{cfg.TEST.NUM_SPATIAL_CROPS}",
        "ensemble": cfg.DATA.ENSEMBLE_METHOD,
        "clip_sampling": cfg.DATA.TEST_CLIP_SAMPLING,
        "frames": cfg.DATA.NUM_FRAMES,
        "sampling_rate": cfg.DATA.SAMPLING_RATE,
        "crop": cfg.DATA.TEST_CROP_SIZE,
    }


def name_before(path: Path) -> Path:
    """Return where a former test's file goes when another test writes one of its name.

    It is a name that is free: those of the tests before may be the ones that matter.
    """
    numbers = chain([""], (f"_{i}" for i in count(2)))
    names = (path.with_name(f"{path.stem}.before{number}{path.suffix}") for number in numbers)
    return next(name for name in names if not os.path.lexists(name))


def save_results(
    path: Path,
    results: Results,
    class_names: Sequence[str],
    method: str,
    checkpoint: tuple[str, str] = ("", ""),
    config: str = "",
) -> None:
    """Write results; the file is whole, or the one before stays.

    `.npz`: scores (V, K), per_view (V, n, K), labels (V,) or (V, K), paths (V,), failed (V,),
    class_names (K,) or (0,), checkpoint, checkpoint_sha256 and config (texts). `.csv`: a row a
    video with path, true label, the five likeliest classes with their probabilities, which are
    empty for a video that couldn't be read, and the checkpoint with its SHA-256.

    Args:
        path: the file; its suffix says which.
        results: what it holds.
        class_names: in label order, or ().
        method: DATA.ENSEMBLE_METHOD.
        checkpoint: file of the weights, and its SHA-256 if it carries one.
        config: YAML of the config that was tested.

    Raises:
        UserError: its folder can't be made.
        OSError: it can't be written.
    """
    make_folder(path.parent)
    if path.suffix == ".npz":
        assert results.per_view is not None  # kept for such a file
        write_npz(
            path,
            scores=results.scores.numpy(),
            per_view=results.per_view.numpy(),
            labels=results.labels.numpy(),
            paths=np.array(results.paths),
            failed=results.failed.numpy(),
            class_names=np.array(class_names, dtype=str),
            checkpoint=np.array(checkpoint[0]),
            checkpoint_sha256=np.array(checkpoint[1]),
            config=np.array(config),
        )
        return
    write_csv(path, _table(results, class_names, method, checkpoint))


def _table(
    results: Results, class_names: Sequence[str], method: str, checkpoint: tuple[str, str]
) -> Iterator[list[str]]:
    """Yield the rows of the `.csv`, the header first."""
    k = min(5, results.scores.shape[1])
    several = results.labels.dim() == 2
    values, classes = probabilities(results.scores, method, results.views, several).topk(k)

    def name(label: int) -> str:
        return class_names[label] if class_names else str(label)

    header = [column for i in range(k) for column in (f"top{i + 1}", f"prob{i + 1}")]
    last = ["checkpoint", "checkpoint_sha256"]
    yield ["path", "label", "label_name", "failed", *header, *last]
    for i, video in enumerate(results.paths):
        truth = results.labels[i]
        labels = truth.nonzero()[:, 0].tolist() if truth.dim() else [int(truth)]
        row = [video, " ".join(map(str, labels)), "; ".join(map(name, labels))]
        if results.failed[i]:
            yield [*row, "yes", *[""] * len(header), *checkpoint]
            continue
        pairs = zip(classes[i].tolist(), values[i].tolist(), strict=True)
        cells = [cell for c, p in pairs for cell in (name(c), f"{p:.4f}")]
        yield [*row, "", *cells, *checkpoint]
