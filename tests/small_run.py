"""A run of a few seconds: the Synthetic recipe with a very small model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timesformer.utils.errors import run_tool as call_tool

ROOT = Path(__file__).resolve().parent.parent
# Before what is there already: packages may come from there, see benchmarks/gpu_check.sh.
PYTHONPATH = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
RECIPE = ROOT / "configs" / "Synthetic" / "TimeSformer_divST_8_64.yaml"

SMALL = {
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "GLOBAL_BATCH_SIZE": 8,
    "TRAIN.BATCH_SIZE": 8,
    "TEST.BATCH_SIZE": 6,
    "DATA.NUM_FRAMES": 4,
    "TIMESFORMER.EMBED_DIM": 24,
    "TIMESFORMER.DEPTH": 2,
    "TIMESFORMER.NUM_HEADS": 3,
    "SOLVER.MAX_EPOCH": 2,
    "SOLVER.WARMUP_EPOCHS": 0.5,
    "DATA_LOADER.NUM_WORKERS": 0,
    "TENSORBOARD.ENABLE": False,
}


def small_options(data: Path, output: Path, **changes: Any) -> list[str]:
    """KEY VALUE pairs; write a dotted key with two underscores, SOLVER__MAX_EPOCH=1."""
    options = SMALL | {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    options |= {key.replace("__", "."): value for key, value in changes.items()}
    return [str(word) for pair in options.items() for word in pair]


def small_cfg(data: Path, output: Path, **changes: Any):
    from timesformer.utils.parser import load_config, parse_args

    return load_config(parse_args(["--cfg", str(RECIPE), *small_options(data, output, **changes)]))


def run_tool(
    tool: str, *words: str, launcher: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess:
    """Runs tools/NAME as a user would, from another folder's point of view."""
    command = [sys.executable, *launcher, str(ROOT / "tools" / tool), *words]
    env = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)


def complaint_of(main: Callable[[list[str]], None], *words: object) -> str:
    """What a command prints on stderr when it ends with status 2, without starting a process."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        call_tool(lambda: main([str(word) for word in words]))
    assert end.value.code == 2
    return stderr.getvalue()


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def small_model(data: Path, folder: Path):
    """That run's model with fresh weights, which knows how its input is made."""
    from timesformer.datasets.build import build_preprocessing
    from timesformer.models.build import build_model

    cfg = small_cfg(data, folder)
    made: Any = build_model(cfg)
    made.preprocessing = build_preprocessing(cfg, "test").to_json()
    return made


def read_npz(path: Path) -> dict[str, Any]:
    """All arrays of a file, which is closed again."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def stats(output: Path, split: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (output / "stats.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]
