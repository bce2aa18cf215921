"""Real training in jobs: preempted, queued again, finished, and to the bit what it is unbroken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_slurm
import numpy as np
import pytest
import torch
from children import command, finish, running
from small_run import PYTHONPATH, RECIPE, read_npz, small_options, stats

from timesformer.cluster.attempts import progress_of
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.dist, pytest.mark.timeout(900)]

OPTIONS: dict[str, Any] = {
    "SOLVER__MAX_EPOCH": 4,
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "DATA_LOADER__NUM_WORKERS": 1,
}


def pairs_of(data: Path, output: Path, **changes: Any) -> list[str]:
    return small_options(data, output, **OPTIONS, **changes)


@contextmanager
def submitted(
    options: list[str], pairs: list[str], env: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The command, as a person gives it."""
    words = ["submit", *options, "--hours", "1", "--cfg", str(RECIPE), *pairs]
    process = subprocess.Popen(
        [sys.executable, "-m", "timesformer", *words], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"} | env,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def attempts(output: Path, what: str = "start") -> list[dict[str, Any]]:
    path = output / "attempts.jsonl"
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return [line for line in lines if line["what"] == what]


def wait_for_steps(output: Path, attempt: int, steps: int) -> None:
    """Waits until an attempt has done so many steps."""
    until = time.monotonic() + 200
    while True:
        done = len(stats(output, "train_iter")) if (output / "stats.jsonl").exists() else 0
        if len(attempts(output)) == attempt and done >= steps:
            return
        assert time.monotonic() < until, (attempts(output), done)
        time.sleep(0.01)


def assert_alike(one: Path, other: Path) -> None:
    """Weights, optimizer, losses and scores are the same to the bit."""
    a, b = (read_checkpoint(get_last_checkpoint(path)) for path in (one, other))
    assert a["epoch"] == b["epoch"] == 3
    for name, value in a["model_state"].items():
        assert torch.equal(value, b["model_state"][name]), name
    for i, kept in a["optimizer_state"]["state"].items():
        for name, value in kept.items():
            assert torch.equal(value, b["optimizer_state"]["state"][i][name]), (i, name)
    steps = [
        {(line["epoch"], line["iter"]): line["loss"] for line in stats(path, "train_iter")}
        for path in (one, other)
    ]
    assert steps[0] == steps[1]
    np.testing.assert_array_equal(*(read_npz(p / "scores.npz")["scores"] for p in (one, other)))


def test_on_this_machine(synthetic_dir: Path, tmp_path: Path) -> None:
    straight, output = tmp_path / "straight", tmp_path / "out"
    with running(
        command, "run", ["--cfg", str(RECIPE), *pairs_of(synthetic_dir, straight)],
        output=tmp_path / "said",
    ) as runs:  # fmt: skip
        assert finish(runs, 200) == [0], runs[0].said[-3000:]
    options = ["--local", "--gpus", "0"]
    with submitted(options, pairs_of(synthetic_dir, output), {}) as process:
        wait_for_steps(output, 1, 4)  # of 12, in the second epoch
        os.kill(attempts(output)[0]["pid"], signal.SIGUSR2)  # what submitit sends at the end
        wait_for_steps(output, 2, 7)
        os.kill(attempts(output)[1]["pid"], signal.SIGTERM)  # what a cluster sends
        said = process.communicate(timeout=200)[0]
    assert process.returncode == 0, said
    assert [line["then"] for line in attempts(output, "end")] == ["again", "again", "finished"]
    assert [line["status"] for line in attempts(output, "end")] == [75, 75, 0]
    assert any(line["place"][1] for line in attempts(output)), "no attempt began within an epoch"
    assert f"{output}: finished after attempt 3" in said
    assert_alike(straight, output)


def test_on_two_nodes_of_slurm(synthetic_dir: Path, tmp_path: Path) -> None:
    straight, output, slurm = tmp_path / "straight", tmp_path / "out", tmp_path / "slurm"
    words = ["--cfg", str(RECIPE), *pairs_of(synthetic_dir, straight)]
    with running(command, "run", words, ranks=2, output=tmp_path / "said") as runs:
        assert finish(runs, 300) == [0, 0], runs[0].said[-3000:]
    # The clips of a node: half of those of one node with two processes.
    changed = pairs_of(synthetic_dir, output, TRAIN__BATCH_SIZE=4)
    options = ["--nodes", "2", "--gpus", "0"]
    with submitted(options, changed, fake_slurm.install(slurm)) as process:
        said = process.communicate(timeout=100)[0]
        assert said.startswith(f"job 100: 1 run in {output}\n"), said
        wait_for_steps(output, 1, 4)
        fake_slurm.send(slurm, "100", signal.SIGUSR2)
        assert fake_slurm.wait_for(slurm, "100", 300) == "DONE 0"
    assert [(x["status"], x["then"]) for x in attempts(output, "end")] == [
        (75, "again"), (0, "finished"),
    ]  # fmt: skip
    log = (output / "run.log").read_text()
    assert "srun in SLURM job 100 started 2 processes (2 nodes × 1)" in log
    assert "srun in SLURM job 100, restart 1 started 2 processes (2 nodes × 1)" in log
    assert attempts(output)[1]["place"] != [0, 0]
    assert progress_of(output) == (4, 0)
    assert_alike(straight, output)
