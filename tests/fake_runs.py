"""`timesformer reproduce` with runs that train nothing: processes of a tenth of a second.

What they do instead is in fake_child.py.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from unittest import mock

import fake_child
from fake_child import FAILING, LINES, LOG, SECONDS

from timesformer.commands import reproduce
from timesformer.engine.results import tested_settings
from timesformer.studies import sweep
from timesformer.studies.plan import Run
from timesformer.studies.study import DATA, SYNTHETIC
from timesformer.utils.checkpoint import get_path_to_checkpoint


def notes(log: Path) -> list[tuple[str, str, int]]:
    """What the log has: start or end, the run, its process."""
    rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(row[0], row[1], int(row[2])) for row in rows]


def top1(name: str) -> float:
    return zlib.crc32(name.encode()) % 1000 / 10


def model_of(run: Run) -> Path:
    return get_path_to_checkpoint(
        run.cfg.TEST.CHECKPOINT_FILE_PATH or run.folder, run.cfg.SOLVER.MAX_EPOCH
    )


def reproduce_fakes(
    words: list[str], log: Path, seconds: float = 0.0, failing: str = "", start: bool = False
) -> None:
    """Do `timesformer reproduce WORDS` with such runs.

    Args:
        words: after the command.
        log: the file that the runs write to.
        seconds: that each takes.
        failing: part of the names of those that fail.
        start: models start from an image model, as really; else all runs can start at once.
    """
    data = SYNTHETIC if start else tuple(replace(panel, start={}) for panel in SYNTHETIC)
    real = sweep.sweep
    lines = log.with_suffix(".json")

    def swept(runs: Mapping[str, Run], jobs: int) -> dict[str, str]:
        made = {
            str(run.folder): {"split": "test_final", "top1_acc": top1(name)}
            | tested_settings(run.cfg)
            | {"checkpoint": str(model_of(run))}
            for name, run in runs.items()
        }
        lines.write_text(json.dumps(made))
        return real(runs, jobs)

    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    said = {LOG: str(log), LINES: str(lines), SECONDS: str(seconds), FAILING: failing}
    fake = [sys.executable, "-m", "timesformer.utils.following", fake_child.__name__]
    with (
        mock.patch.dict(os.environ, said | {"PYTHONPATH": path}),
        mock.patch.object(sweep, "child_command", return_value=fake),
        mock.patch.object(sweep, "PAUSE", 0.01),
        mock.patch.object(reproduce, "sweep", swept),
        mock.patch.object(reproduce, "DATA", {**DATA, "synthetic": data}),
        mock.patch.object(reproduce, "make_data"),
    ):
        reproduce.main(words)
