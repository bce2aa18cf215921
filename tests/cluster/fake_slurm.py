"""A SLURM of one machine: sbatch, srun, scontrol and squeue, as far as a submitted run needs them.

`install` makes the four programs; state lies in the folder FAKE_SLURM. As the real ones do, sbatch
starts a job's script, again each time that the job is queued again; srun starts its tasks, sends
them no more than the signal that was asked for, and kills all when one ends with an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "scontrol", "squeue")


def install(folder: Path) -> dict[str, str]:
    """Makes the programs in a folder; returns the environment in which they are found."""
    state, programs = folder / "state", folder / "programs"
    state.mkdir(parents=True)
    programs.mkdir()
    for name in PROGRAMS:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        program.chmod(0o755)
    return {"FAKE_SLURM": str(state), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def state() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def options_of(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE)
    return {key: value.strip("'") for key, value in found}


def sbatch(script: str) -> None:
    options = options_of(Path(script).read_text())
    number = 100 + len([*state().glob("job_*")])
    last = re.match(r"0-(\d+)", options.get("array", ""))
    count = int(last[1]) + 1 if last else 1
    for index in range(count):
        (state() / f"job_{number + index}").write_text("PENDING")
        name = f"{number}_{index}" if last else f"{number}"
        subprocess.Popen(
            [sys.executable, __file__, "job", name, str(number + index), script],
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(state() / f"{name}.err").open("w"),
        )  # fmt: skip
    print(f"Submitted batch job {number}")


def job(name: str, number: str, script: str) -> None:
    """Does what slurmctld does for a job."""
    options, start = options_of(Path(script).read_text()), 0
    array, _, index = name.partition("_")
    nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
    env = os.environ | {
        "SLURM_JOB_ID": number, "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": "localhost" if nodes == 1 else f"localhost[1-{nodes}]",
        # What the script of sbatch sees, where srun hasn't started tasks:
        "SLURM_NTASKS": str(nodes * tasks), "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip
    if index:
        env |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}
    while True:
        (state() / f"job_{number}").write_text("RUNNING")
        if start:
            env["SLURM_RESTART_COUNT"] = str(start)
        status = subprocess.run(["bash", script], env=env | {"FAKE_NAME": name}).returncode
        if not (state() / f"{name}.requeue").exists():
            break
        (state() / f"{name}.requeue").unlink()
        start += 1
    (state() / f"job_{number}").write_text(f"DONE {status}")


def srun(*words: str) -> int:
    parser = argparse.ArgumentParser()
    for option in ("--output", "--error", "--cpus-per-task"):
        parser.add_argument(option)
    parser.add_argument("--unbuffered", action="store_true")
    parser.add_argument("--kill-on-bad-exit", type=int)
    args, command = parser.parse_known_args(words)
    env, name = os.environ, os.environ["FAKE_NAME"]
    count, nodes = int(env["SLURM_NTASKS"]), int(env["SLURM_JOB_NUM_NODES"])
    step = {
        "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NODELIST": env["SLURM_JOB_NODELIST"],
        "SLURM_STEP_TASKS_PER_NODE": f"{count // nodes}(x{nodes})",
        # Names of the nodes mean nothing on this machine.
        "MASTER_ADDR": "localhost",
    }  # fmt: skip
    tasks = []
    for rank in range(count):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % (count // nodes))}
        out, err = (place_of(path, name, rank).open("a") for path in (args.output, args.error))
        tasks.append(subprocess.Popen(command, env=env | step | own, stdout=out, stderr=err))
    (state() / f"{name}.tasks").write_text(json.dumps([task.pid for task in tasks]))
    while any(task.poll() is None for task in tasks):
        requeued = (state() / f"{name}.requeue").exists()
        if requeued or any(task.returncode for task in tasks):
            time.sleep(0.3)
            for task in tasks:
                task.kill()
        time.sleep(0.02)
    (state() / f"{name}.tasks").unlink()
    return max(abs(task.wait()) for task in tasks)


def place_of(pattern: str, name: str, rank: int) -> Path:
    array, _, index = name.partition("_")
    told = {"%j": name, "%A": array, "%a": index, "%t": str(rank)}
    for key, value in told.items():
        pattern = pattern.replace(key, value)
    return Path(pattern)


def scontrol(what: str, name: str) -> None:
    assert what == "requeue"
    (state() / f"{name}.requeue").touch()


def squeue(*words: str) -> int:
    number = words[words.index("--jobs") + 1]
    known = state() / f"job_{number}"
    said = known.read_text() if known.exists() else ""
    if said and not said.startswith("DONE"):
        print(said)
    return 0 if said else 1


def send(folder: Path, name: str, number: signal.Signals) -> None:
    """Sends a signal to the tasks of a job, as slurmctld does before its time is over."""
    for pid in json.loads((folder / "state" / f"{name}.tasks").read_text()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_for(folder: Path, name: str, seconds: float) -> str:
    """Waits until a job is done, and returns its state."""
    until = time.monotonic() + seconds
    while (said := (folder / "state" / f"job_{name}").read_text())[:4] != "DONE":
        assert time.monotonic() < until, said
        time.sleep(0.05)
    return said


if __name__ == "__main__":
    called = {"sbatch": sbatch, "srun": srun, "scontrol": scontrol, "squeue": squeue, "job": job}
    sys.exit(called[sys.argv[1]](*sys.argv[2:]))
