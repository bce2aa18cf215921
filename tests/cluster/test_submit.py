"""From the words of `timesformer submit` to jobs: of this machine, and of a SLURM for tests."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_run
import fake_slurm
import pytest
from small_run import RECIPE, complaint_of

from timesformer.cluster import submit
from timesformer.cluster.attempts import Attempts
from timesformer.cluster.submit import Resources, runs_of
from timesformer.commands.submit import main
from timesformer.utils.files import LOCK_NAME

pytest.importorskip("submitit")

SMALL = Resources(nodes=1, gpus=0, minutes=5, cpus=1, notice=10)
HERE = ["--hours", "1", "--cfg", str(RECIPE)]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a SLURM, whose programs are found."""
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "slurm"


def fakes(output: Path, seeds: tuple[int, ...] = (), tries: int = 2) -> list[Any]:
    runs = runs_of(["--cfg", "X"], output, seeds, tries, SMALL.notice)
    return [replace(run, program=fake_run.PROGRAM, look=0.2, patience=0.5) for run in runs]


def wait_for(*paths: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < until, paths
        time.sleep(0.05)


def ends(run: Any) -> list[tuple[int, str]]:
    return [(x["status"], x["then"]) for x in Attempts(run.output_dir, run.submission).lines("end")]


# ---------------------------------------------------------------------------- this machine


def test_on_this_machine_a_job_goes_on_or_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_PLAN", "advance,crash")
    (run,) = fakes(tmp_path, tries=1)
    failed = submit.run_here(SMALL, [run], tmp_path / "cluster")
    assert failed.keys() == {str(tmp_path)}
    why = "1 attempt without progress past epoch 1: RuntimeError: out of memory (status 1); mend"
    assert failed[str(tmp_path)].startswith(why)
    assert ends(run) == [(1, "again"), (1, "again"), (1, "gave up")]
    (out,) = (tmp_path / "cluster").glob("*.out")
    assert f"timesformer submit: given up: {why}" in out.read_text()
    assert f"{tmp_path}: gave up after attempt 2\n" in capfd.readouterr().out


def test_a_job_that_says_nothing(tmp_path: Path) -> None:
    """What submitit itself can't do is in its file."""
    (run,) = fakes(tmp_path)
    broken = replace(SMALL, setup=["export PYTHONPATH=/nonexistent PYTHONHOME=/nonexistent"])
    failed = submit.run_here(broken, [run], tmp_path / "cluster")
    assert failed[str(tmp_path)].startswith("its job was killed before it could say why; see ")


# ---------------------------------------------------------------------------- SLURM


def test_an_array_of_seeds_on_two_nodes_each(slurm: Path, tmp_path: Path) -> None:
    """One is preempted, the other one's second rank crashes; both are queued again and finish."""
    output = tmp_path / "out"
    folder = output / "cluster"
    runs = fakes(output, seeds=(3, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_PLAN", "wait,done")
        executor = submit.slurm_executor(replace(SMALL, nodes=2), folder)
        jobs = submit.submit(executor, runs, folder)
    assert [job.job_id for job in jobs] == ["100_0", "100_1"]
    for run in runs:
        wait_for(*(Path(run.output_dir) / f"ready_{rank}_1" for rank in (0, 1)))
    with pytest.raises(submit.UserError, match=r"job 100 is to run there \(RUNNING\).*scancel 100"):
        submit.refuse_used(fakes(output, seeds=(5, 7)), folder)
    fake_slurm.send(slurm, "100_0", signal.SIGUSR2)
    pid = int((Path(runs[1].output_dir) / "started_1").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    for number in ("100", "101"):
        assert fake_slurm.wait_for(slurm, number, 90) == "DONE 0"
    for seed, run, first in zip((3, 5), runs, (75, -9), strict=True):
        place = Path(run.output_dir)
        assert place == output / f"seed_{seed}"
        assert run.words[-2:] == ("RNG_SEED", str(seed))
        assert ends(run) == [(first, "again"), (0, "finished")]
        assert [line["job"] for line in Attempts(place, run.submission).lines("start")] == [
            f"100_{runs.index(run)}"
        ] * 2
        assert [x.split()[1] for x in (place / "started_1").read_text().splitlines()] == ["2"] * 2
    said = (folder / "100_0_0_log.out").read_text()  # of both starts
    assert said.count("timesformer submit: attempt") == 2
    submit.refuse_used(fakes(output, seeds=(5, 7)), folder)  # they are done


def test_given_up_on_slurm(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PLAN", "crash")
    (run,) = fakes(tmp_path / "out")
    executor = submit.slurm_executor(SMALL, tmp_path / "out/cluster")
    (job,) = submit.submit(executor, [run], tmp_path / "out/cluster")
    assert fake_slurm.wait_for(slurm, job.job_id, 60) == "DONE 1"
    assert ends(run) == [(1, "again"), (1, "again"), (1, "gave up")]
    (line,) = (tmp_path / "out/cluster/submitted.jsonl").read_text().splitlines()
    assert json.loads(line)["job"] == job.job_id == "100"


# ---------------------------------------------------------------------------- words


def test_what_sbatch_would_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--nodes", "2", "--gpus", "4", "--hours", "1.5", "--seeds", "0,1", "--parallel", "1"]
    options += [
        "--sbatch",
        "partition=gpu",
        "--sbatch",
        "exclusive",
        "--setup",
        "module load x",
    ]
    pairs = ["OUTPUT_DIR", "runs/a", "GLOBAL_BATCH_SIZE", "0", "TRAIN.BATCH_SIZE", "8"]
    main([*options, "--dry-run", "--cfg", str(RECIPE), *pairs, "TEST.BATCH_SIZE", "8"])
    script = capsys.readouterr().out
    found = fake_slurm.options_of(script)
    wanted = {"nodes": "2", "ntasks-per-node": "4", "gpus-per-node": "4", "time": "90"}
    wanted |= {"array": "0-1%1", "partition": "gpu", "signal": "USR2@120", "requeue": ""}
    wanted |= {"exclusive": ""}
    assert wanted.items() <= found.items()
    assert "wckey" not in found
    assert "\nmodule load x\n" in script
    assert f"srun --unbuffered --output {tmp_path}/runs/a/cluster/%A_%a_%t_log.out" in script
    assert f"NUM_GPUS 4 OUTPUT_DIR {tmp_path}/runs/a/seed_1 RNG_SEED 1\n" in script
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "0"], "--hours 0: must be above 0"),
        (["--hours", "nan"], "--hours nan: must be above 0"),
        (["--hours", "0.01"], "--hours 0.01: no longer than --notice 120 seconds"),
        (["--nodes", "0"], "--nodes 0: must be 1 or more"),
        (["--gpus", "-1"], "--gpus -1: must be 0 or more"),
        (["--seeds", "1,1"], "--seeds: '1,1': different numbers, as 0,1,2"),
        (["--sbatch", "p=gpu"], "--sbatch: 'p=gpu': an option of sbatch by its long name"),
        (["--sbatch", "time=3"], "--sbatch: 'time=3': --hours says it"),
        # The run would count on 120 s, and wait for a signal that never comes.
        (["--sbatch", "signal=TERM@30"], "--sbatch: 'signal=TERM@30': --notice says it"),
        (["--sbatch", "gpus_per_node=4"], "--sbatch: 'gpus_per_node=4': --gpus says it"),
        (["--local", "--nodes", "2"], "--nodes: is for SLURM; --local runs on this machine alone"),
    ],
)
def test_options_that_cant_be(words: list[str], said: str) -> None:
    assert said in complaint_of(main, *HERE[:2], *words, *HERE[2:])


@pytest.mark.parametrize(
    ("options", "pairs", "said"),
    [
        ([], ["NUM_GPUS", "2"], "NUM_GPUS 2: leave it out: --gpus says it"),
        ([], ["NUM_SHARDS", "2"], "NUM_SHARDS 2: leave it out: --nodes says it"),
        (["--seeds", "0"], ["RNG_SEED", "2"], "RNG_SEED 2: leave it out: --seeds says it"),
        ([], ["TRAIN.AUTO_RESUME", "False"], "TRAIN.AUTO_RESUME False: each time that the job"),
        ([], ["DATA_LOADER.NUM_WORKERS", "auto"], "DATA_LOADER.NUM_WORKERS auto takes the cores"),
        (["--gpus", "3"], [], "TRAIN.BATCH_SIZE 32 does not split evenly over the 3 processes"),
        (["--nodes", "3"], [], "GLOBAL_BATCH_SIZE 32 is not a multiple of the 96 clips"),
    ],
)
def test_configs_that_cant_be(options: list[str], pairs: list[str], said: str) -> None:
    words = [*options, *HERE, *pairs]
    assert complaint_of(main, *words).startswith(f"error: {said}")


def test_where_it_cant_be_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    output = ["OUTPUT_DIR", str(tmp_path / "out")]
    monkeypatch.setenv("PATH", "/nonexistent")
    said = complaint_of(main, *HERE, *output)
    assert said.startswith("error: there is no sbatch here: run this on a login node")
    assert not (tmp_path / "out").exists()
    request.getfixturevalue("slurm")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK_NAME).write_text('{"host": "node-7", "pid": 1, "since": "now"}')
    said = complaint_of(main, *HERE, *output)
    assert "out is in use by another run, process 1 on node-7" in said
    (tmp_path / "out" / LOCK_NAME).unlink()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    said = complaint_of(main, "--local", "--gpus", "1", *HERE, *output)
    assert said.startswith("error: NUM_GPUS 1: NUM_GPUS asks for 1 on this node, which has 0")


@pytest.mark.usefixtures("slurm")
def test_lists_that_are_missing_are_told_before_there_is_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "data", tmp_path / "run"
    words = [*HERE, "DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output]
    main(["--dry-run", *map(str, words)])  # a login node may lack the data's disk
    assert f"PATH_TO_DATA_DIR {data}: not on this machine" in capsys.readouterr().err
    data.mkdir()
    assert f"error: {data}/train.csv: not there yet" in complaint_of(main, *words)
    assert not output.exists()


def test_sbatch_may_refuse(slurm: Path, tmp_path: Path) -> None:
    refusing = slurm / "programs" / "sbatch"
    refusing.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: x' >&2\nexit 1\n")
    said = complaint_of(main, *HERE, "OUTPUT_DIR", str(tmp_path / "out"))
    assert said.endswith("\nerror: sbatch: invalid partition: x\n")  # submitit shows all it said


def test_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "submitit", None)
    said = complaint_of(main, "--dry-run", *HERE, "OUTPUT_DIR", str(tmp_path / "out"))
    assert said.endswith("pip install 'timesformer[cluster]'\n")
