"""A run that goes on with another number of processes is the same run."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from children import PATIENCE, command, finish, lines, running, words

from timesformer.engine import train as module
from timesformer.utils.distributed import get_rank

# 24 videos in steps of 8: 3 steps an epoch. Everything random is on.
RANDOM: dict[str, Any] = {
    "SOLVER__MAX_EPOCH": 5,
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "AUG__COLOR_JITTER": 0.4,
    "EMA__ENABLED": True,
    "DATA_LOADER__NUM_WORKERS": 2,
    "TEST__ENABLE": False,
}
STEPS = 15


def run_noting(folder: str, argv: list[str]) -> None:
    """Train, and note which videos a rank has in each step, in its forward passes."""
    real = module.train_step

    def step(state: Any, group: Any, epoch: int, number: int) -> Any:
        result = real(state, group, epoch, number)
        line = [epoch, number, get_rank(), [batch[2].tolist() for batch in group]]
        with (Path(folder) / f"videos{get_rank()}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return result

    module.train_step = step
    command("run", argv)


def videos(folder: Path) -> dict[tuple[int, int], list[int]]:
    """Videos of each step, in their order in the step's batch: pass by pass, rank by rank."""
    found: dict[tuple[int, int], list[tuple[int, int, list[int]]]] = {}
    for path in folder.glob("videos*.jsonl"):
        for epoch, step, rank, passes in map(json.loads, path.read_text().splitlines()):
            parts = found.setdefault((epoch, step), [])
            parts += [(i, rank, part) for i, part in enumerate(passes)]
    return {
        place: [video for *_, part in sorted(parts) for video in part]
        for place, parts in found.items()
    }


def losses(output: Path) -> dict[tuple[str, str], float]:
    return {(s["epoch"], s["iter"]): s["loss"] for s in lines(output, "train_iter")}


@pytest.mark.dist
@pytest.mark.parametrize("ranks_of_part", [(1, 2, 1), (2, 1, 2)])
def test_ranks_come_and_go(synthetic_dir: Path, tmp_path: Path, ranks_of_part: tuple[int, ...]):
    """Asked to stop after some steps, it goes on with other ranks: same videos, same losses."""
    passes = {1: 4, 2: 8}  # clips that a node takes at once
    folders = [tmp_path / name for name in ("straight", "changing")]
    for folder in folders:
        folder.mkdir()
    for folder, parts in zip(folders, [(1,), ranks_of_part], strict=True):
        output = folder / "run"
        for part, ranks in enumerate(parts, 1):
            options = RANDOM | {"TRAIN__BATCH_SIZE": passes[ranks]}
            argv = words(synthetic_dir, output, **options)
            said = folder / f"{part}.txt"
            with running(run_noting, str(folder), argv, ranks=ranks, output=said) as runs:
                wanted = STEPS * part // len(parts) - 2
                deadline = time.monotonic() + 120 * PATIENCE
                while part < len(parts) and len(videos(folder)) < wanted:
                    assert time.monotonic() < deadline, runs[0].said[-3000:]
                    time.sleep(0.02)
                if part < len(parts):
                    os.kill(runs[-1].pid, signal.SIGUSR1)
                expected = 75 if part < len(parts) else 0
                assert finish(runs, 120) == [expected] * ranks, runs[0].said[-3000:]
    straight, changing = (videos(folder) for folder in folders)
    assert len(straight) == STEPS
    assert changing == straight
    a, b = (losses(folder / "run") for folder in folders)
    assert a.keys() == b.keys()
    assert {key: pytest.approx(loss, rel=1e-6) for key, loss in a.items()} == b
