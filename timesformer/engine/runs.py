"""What a run left in its OUTPUT_DIR, summed up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.engine.ema import PREFIX
from timesformer.engine.results import tested_data
from timesformer.models.build import label, meta_model, view_shape
from timesformer.models.profiling import count_macs
from timesformer.utils.checkpoint import (
    BEST,
    Place,
    epoch_of,
    get_last_checkpoint,
    read_checkpoint,
)
from timesformer.utils.errors import UserError
from timesformer.utils.files import RUN_HOLDS, is_folder, open_regular
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

COLUMNS = (
    "run", "model", "params", "GMACs/clip", "epochs", "step", "train", "val top-1", "top-1",
    "top-5", "mean class", "test videos", "views",
)  # fmt: skip


class Run(NamedTuple):
    """A row of the table.

    Attributes:
        cells: under COLUMNS; what a run doesn't have is a dash.
        point: (name, GMACs of a clip, top-1 in percent, parameters), if it was tested.
        notes: where it went on as another run than it was (TRAIN.RESUME_ANYWAY).
    """

    cells: tuple[str, ...]
    point: tuple[str, float, float, int] | None
    notes: tuple[str, ...] = ()


def read_stats(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's stats.jsonl, from where it last started over in its folder.

    A last line that a killed run didn't finish is left out; others that aren't JSON too, with a
    warning: of a run, one line may be lost where storage failed.

    Raises:
        UserError: if there is no such file, or no line in it is JSON.
    """
    path = run / "stats.jsonl"
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        what = "not a run" if is_folder(run) else "no such folder"
        raise UserError(f"{run}: {what}; {RUN_HOLDS}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    stats: list[dict[str, Any]] = []
    strange: list[str] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            if not isinstance(said := json.loads(line), dict):
                raise ValueError("no object")
            stats.append(said)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 10⁵ brackets
            if number < len(lines) or text.endswith("\n"):
                strange.append(f"{path}, line {number}: not JSON that a run writes ({error})")
    if strange and not stats:
        raise UserError(strange[0])
    if strange:
        others = f", as are {len(strange) - 1} more" if strange[1:] else ""
        logger.warning("%s; it is left out%s", strange[0], others)
    starts = [
        i
        for i, line in enumerate(stats)
        if line.get("split") == "start" and not line.get("resumed", line.get("first_epoch") != 1)
    ]
    return stats[starts[-1] if starts else 0 :]


def validations(lines: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the validations in a run's lines, by epoch (from 1); of the same epoch the last.

    Where a run went on from an earlier epoch, since a checkpoint was damaged or gone, what it had
    made after that isn't there any more, and what was said of it doesn't count.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        if line.get("split") == "val":
            found[str(line.get("epoch")).partition("/")[0]] = line
        elif line.get("split") == "start" and isinstance(first := line.get("first_epoch"), int):
            found = {e: x for e, x in found.items() if not e.isdecimal() or int(e) < first}
    return found


def read_run(folder: Path) -> Run:
    """Sum up a run.

    Raises:
        UserError: its stats.jsonl can't be read, or isn't what a run writes.
    """
    try:
        return _read_run(folder)
    except UserError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        path = folder / "stats.jsonl"
        raise UserError(f"{path}: isn't what a run writes ({error!r:.100})") from error


def _read_run(folder: Path) -> Run:
    last: dict[str, dict[str, Any]] = {}
    epochs: dict[str, dict[str, float]] = {}
    lines = read_stats(folder)
    for line in lines:
        last[line.get("split", "")] = line
        if line.get("split") == "train_epoch":
            epochs[line["epoch"]] = line  # a resumed epoch counts once
    start, test = (last.get(split, {}) for split in ("start", "test_final"))
    tested = str(test.get("checkpoint", ""))
    average = PREFIX if test.get("weights") == "ema" else ""
    val = validation_of(tested, validations(lines), average) or last.get("val", {})
    cfg = read_config(folder)
    macs = count_macs(meta_model(cfg), view_shape(cfg)) if cfg else None

    def percent(stats: Mapping[str, Any], key: str) -> str:
        return f"{stats[key]:.1f} %" if stats.get(key) is not None else "-"

    cells = (
        folder.name,
        label(cfg) if cfg else "-",
        f"{start['params']:,}" if "params" in start else "-",
        f"{macs / 1e9:.3g}" if macs else "-",
        last.get("train_epoch", {}).get("epoch", "-"),
        f"{1e3 * median(e['dt'] for e in epochs.values()):.0f} ms" if epochs else "-",
        f"{sum(e['seconds'] for e in epochs.values()):.0f} s" if epochs else "-",
        percent(val, f"{average}top1_acc"),
        percent(test, "top1_acc"),
        percent(test, "top5_acc"),
        percent(test, "mean_class_acc"),
        _test_videos(test, cfg),
        test.get("views", "-"),
    )
    point = None
    if macs and "params" in start and test.get("top1_acc") is not None:
        point = (folder.name, macs / 1e9, test["top1_acc"], start["params"])
    notes = [
        f"{folder.name} went on with other settings after {Place(said['epoch'], said['step'])}: "
        f"{', '.join(map(str, said['changes']))} (TRAIN.RESUME_ANYWAY)"
        for said in start.get("resumed_anyway", ())
    ]
    return Run(cells, point, tuple(notes))


def _test_videos(test: Mapping[str, Any], cfg: CfgNode | None) -> str:
    """Name the data of a test, which older runs say in their configs only, and their number."""
    if "videos" not in test:
        return "-"
    data = test.get("data") or (tested_data(cfg) if cfg else "?")
    return f"{data}, {test['videos']:,}"


def differing_tests(runs: Iterable[Run]) -> str:
    """Warn where runs weren't tested alike, so that their accuracies can't be compared; else ""."""
    tests = [run.cells[-2:] for run in runs if run.cells[-1] != "-"]
    differ = [name for i, name in enumerate(COLUMNS[-2:]) if len({test[i] for test in tests}) > 1]
    if not differ:
        return ""
    return f"not tested alike ({' and '.join(differ)} differ): top-1 can't be compared"


def validation_of(
    checkpoint: str, vals: Mapping[str, Mapping[str, Any]], average: str = ""
) -> Mapping[str, Any]:
    """Return the validation of the checkpoint that was tested, to stand beside its test.

    Args:
        checkpoint: path of that checkpoint.
        vals: as `validations` returns them.
        average: what begins the names of the metrics of the weights that were tested.
    """
    path = Path(checkpoint)
    if path.name == BEST:
        several = any(line.get("map") is not None for line in vals.values())
        by = average + ("map" if several else "top1_acc")
        known = [line for line in vals.values() if line.get(by) is not None]
        return max(known, key=lambda line: line[by], default={})  # of equals the first, as `Best`
    return vals.get(str(epoch_of(path)), {})


def read_config(folder: Path) -> CfgNode | None:
    """Read the config in the newest checkpoint of a run, if there is one."""
    path = get_last_checkpoint(folder)
    if path is None:
        return None
    cfg = get_cfg()
    cfg.merge_from_string(read_checkpoint(path)["cfg"], str(path))
    return cfg
