"""What the runs of a study gave: a value for each seed, their mean, and the CSV of it all."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from timesformer import __version__
from timesformer.clips.ensemble import ensemble
from timesformer.datasets.build import build_views
from timesformer.engine.broken import allowed_failures
from timesformer.engine.results import result_files, tested_settings
from timesformer.engine.runs import read_stats
from timesformer.models.build import meta_model, view_shape
from timesformer.models.profiling import count_macs
from timesformer.studies.plan import Plan, Point, Run
from timesformer.studies.statistics import Estimate, estimate
from timesformer.utils.checkpoint import BEST, epoch_of
from timesformer.utils.errors import UserError
from timesformer.utils.metrics import topk_correct
from timesformer.utils.npz import NPZ_DAMAGE


class Row(NamedTuple):
    """A point with its numbers.

    Attributes:
        point: variant and data.
        values: top-1 in percent by seed; None where the run isn't complete.
        x: its place on the axis; None where the study has none.
        gmacs: 10⁹ multiply-adds of a clip, where the study asks for them.
    """

    point: Point
    values: tuple[float | None, ...]
    x: float | None
    gmacs: float | None

    @property
    def estimate(self) -> Estimate | None:
        """Mean and interval over the seeds that there are."""
        found = [value for value in self.values if value is not None]
        return estimate(found) if found else None

    @property
    def missing(self) -> int:
        """How many seeds' runs aren't complete."""
        return self.values.count(None)


def finished(run: Run) -> Mapping[str, Any] | None:
    """Return the line of a run's last test; None if it isn't of the right settings, or has failed.

    It has if more videos than DATA.MAX_FAILED allows couldn't be read. Somebody may also have
    tested another model in the run's folder since.
    """
    try:
        lines = read_stats(run.folder)
    except UserError:
        return None
    last = lines[-1] if lines else {}
    if last.get("split") != "test_final" or not isinstance(last.get("top1_acc"), float):
        return None
    # Such a test writes its line before it ends in an error.
    allowed = allowed_failures(last.get("videos", 0), run.cfg.DATA.MAX_FAILED)
    said = {"weights": "raw", **last}  # older lines don't say it
    right = tested_settings(run.cfg).items() <= said.items() and _is_own(run, last)
    return last if right and last.get("failed_videos", 0) <= allowed else None


def _is_own(run: Run, test: Mapping[str, Any]) -> bool:
    """Whether a test is of the model that the run ends with, or that it is there to test."""
    tested, cfg = Path(str(test.get("checkpoint"))), run.cfg
    folder = Path(cfg.TEST.CHECKPOINT_FILE_PATH or run.folder)
    if tested.parent.parent.name != folder.name:  # whatever the folder of the runs was then
        return False
    if cfg.TEST.CHECKPOINT == "best":
        return tested.name == BEST
    epoch = epoch_of(tested)
    return epoch == cfg.SOLVER.MAX_EPOCH or (epoch is not None and cfg.SOLVER.EARLY_STOP_EPOCHS > 0)


def read_rows(plan: Plan) -> list[Row]:
    """Read what there is of a study."""
    return [_read_row(plan, point) for point in plan.points]


def _read_row(plan: Plan, point: Point) -> Row:
    study, cfg = plan.study, point.runs[0].cfg
    x = study.x_of(cfg) if study.x_of else point.variant.x
    gmacs = count_macs(meta_model(cfg), view_shape(cfg)) / 1e9 if study.costs else None
    return Row(point, tuple(_value(run, point.variant.clips) for run in point.runs), x, gmacs)


def _value(run: Run, clips: int) -> float | None:
    test = finished(run)
    if test is None:
        return None
    return clip_accuracy(run, clips) if clips else float(test["top1_acc"])


def clip_accuracy(run: Run, clips: int) -> float:
    """Return the top-1 accuracy in percent of so many of the clips that a run was tested on.

    They are spread evenly over those of the test; all crops of each count.

    Raises:
        UserError: the run has no file of the scores of each view.
    """
    cfg = run.cfg
    path = next((p for p in result_files(cfg) if p.suffix == ".npz"), run.folder / "scores.npz")
    try:
        with np.load(path) as file:
            per_view, labels = torch.tensor(file["per_view"]), torch.tensor(file["labels"])
    except (OSError, KeyError, *NPZ_DAMAGE) as error:
        raise UserError(f"{path}: no scores of each view ({error}); delete {run.folder}") from error
    views = build_views(cfg, "test").num_views
    if per_view.dim() != 3 or per_view.shape[1] != views or len(labels) != len(per_view):
        shape = tuple(per_view.shape)
        raise UserError(
            f"{path}: scores of shape {shape}, not of {views} views of {len(labels):,} videos; "
            f"delete {run.folder}"
        )
    grid = per_view.unflatten(1, (cfg.TEST.NUM_ENSEMBLE_VIEWS, -1))  # (V, clips, crops, K)
    chosen = grid[:, spread(clips, grid.shape[1])].flatten(1, 2)
    scores = ensemble(chosen, cfg.DATA.ENSEMBLE_METHOD)  # NaN: never right
    return 100.0 * topk_correct(scores, labels, (1,))[0] / len(labels)


def spread(count: int, total: int) -> list[int]:
    """Return `count` of the numbers below `total`, in the middle of as many equal parts."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def csv_rows(plan: Plan, rows: list[Row]) -> Iterator[list[object]]:
    """Yield the rows of a study's CSV, the header first."""
    seeds = [f"seed_{i}" for i in range(max(len(row.values) for row in rows))]
    yield [
        *("study", "data", "variant", "series", "x", "gmacs", "n_seeds", "mean", "low", "high"),
        *("interval", *seeds, "paper", "paper_data", "runs", "version"),
    ]
    version = code_version()
    for row in rows:
        data, variant = row.point.data, row.point.variant
        found = row.estimate
        numbers = (found.mean, found.low, found.high) if found else (None, None, None)
        yield [
            *(plan.name, data.name, variant.name, variant.series, _shown(row.x)),
            *(_shown(row.gmacs), found.number if found else 0, *map(_shown, numbers)),
            *(_interval(found), *map(_shown, row.values), _shown(variant.paper)),
            data.paper if variant.paper is not None else "",
            " ".join(run.folder.name for run in row.point.runs),
            version,
        ]


def _interval(found: Estimate | None) -> str:
    if found is None:
        return "no run is complete"
    return "none: one seed" if found.low is None else "95 % of Student's t"


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"


def code_version() -> str:
    """Return the version, and the commit where the package is a checkout."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return __version__
    words = ["git", "-C", str(package), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__} {said.stdout.strip()}"
