"""Hands runs to SLURM, or to this machine as if it were one, by submitit."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer.cluster.attempts import FINISHED, Attempts
from timesformer.cluster.job import ClusterRun
from timesformer.utils.errors import UserError
from timesformer.utils.files import append_line, make_folder
from timesformer.utils.run_lock import run_lock

if TYPE_CHECKING:
    from submitit import Executor, Job

FOLDER = "cluster"  # in OUTPUT_DIR: what the jobs say, and what submitit keeps
SUBMITTED = "submitted.jsonl"  # in that folder
NO_LIMIT = 10**6  # requeues after which submitit would give up by itself
PAUSE = 0.5  # seconds between two looks at jobs of this machine


@dataclass(frozen=True)
class Resources:
    """What a job asks for.

    Attributes:
        nodes: machines.
        gpus: on each of them, each with a task of its own; 0: one task, on the CPU.
        minutes: until it is ended, and queued again.
        cpus: cores of a task.
        notice: seconds before the end at which the run is told to save.
        parallel: jobs of an array at a time.
        name: of the job.
        sbatch: other options of sbatch, e.g. {"partition": "gpu", "exclusive": True}.
        setup: lines of shell before the run, e.g. "module load cuda".
    """

    nodes: int
    gpus: int
    minutes: int
    cpus: int
    notice: int = 120
    parallel: int = 256
    name: str = "timesformer"
    sbatch: Mapping[str, str | bool] = field(default_factory=dict)
    setup: Sequence[str] = ()

    @property
    def tasks(self) -> int:
        """Tasks of each node."""
        return max(1, self.gpus)


def runs_of(
    words: Sequence[str], output_dir: Path, seeds: Sequence[int], tries: int, notice: int
) -> list[ClusterRun]:
    """Return the run that the words ask for, or one for each seed, in OUTPUT_DIR/seed_N.

    Args:
        words: of `timesformer run`; what is told apart here needn't be among them.
        output_dir: OUTPUT_DIR.
        seeds: values of RNG_SEED; (): one run, with the config's.
        tries: see `ClusterRun`, and for `notice` too.
        notice: seconds.
    """
    submission = uuid.uuid4().hex[:12]

    def run(place: Path, *more: str) -> ClusterRun:
        told = (*words, "OUTPUT_DIR", str(place), *more)
        return ClusterRun(told, str(place), tries, submission, notice)

    if not seeds:
        return [run(output_dir)]
    return [run(output_dir / f"seed_{n}", "RNG_SEED", str(n)) for n in seeds]


def sbatch_script(resources: Resources, runs: Sequence[ClusterRun], folder: Path) -> str:
    """Return the script that `submit` would give to sbatch; this machine needn't know SLURM.

    Args:
        resources: of each job.
        runs: several make an array.
        folder: for what the jobs say.
    """
    import submitit

    class Printer(submitit.SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:  # of a machine that has srun
            return 2

    printer = Printer(folder)
    printer.update_parameters(**_parameters(resources))
    if len(runs) > 1:
        printer.parameters["map_count"] = len(runs)
    text = printer._make_submission_file_text(printer._submitit_command_str, "")
    told = (f"timesformer run {shlex.join(run.words)}" for run in runs)
    each = "\n".join(f"#   {i}: {line}" for i, line in enumerate(told))
    return f"{text}\n# which starts in each task, by the index of the job in its array:\n{each}\n"


def slurm_executor(resources: Resources, folder: Path) -> Executor:
    """Return what submits to SLURM.

    Raises:
        UserError: it isn't here.
    """
    import submitit

    if missing := [name for name in ("sbatch", "srun") if not shutil.which(name)]:
        raise UserError(
            f"there is no {missing[0]} here: run this on a login node of the cluster; --dry-run "
            "prints the script that it would be given, --local runs on this machine"
        )
    executor = submitit.SlurmExecutor(folder, max_num_timeout=NO_LIMIT)
    executor.update_parameters(**_parameters(resources))
    return executor


def local_executor(resources: Resources, folder: Path) -> Executor:
    """Return what does on this machine what SLURM does: end, and start again."""
    import submitit

    executor = submitit.LocalExecutor(folder, max_num_timeout=NO_LIMIT)
    executor.update_parameters(
        timeout_min=resources.minutes, gpus_per_node=resources.gpus, tasks_per_node=1,
        signal_delay_s=resources.notice, setup=list(resources.setup),
    )  # fmt: skip
    return executor


def _parameters(resources: Resources) -> dict[str, Any]:
    """Return what submitit's executor for SLURM is told."""
    gpus = {"gpus_per_node": resources.gpus} if resources.gpus else {}
    return {
        "job_name": resources.name,
        "wckey": None,  # submitit's own, which some clusters refuse
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks,
        "cpus_per_task": resources.cpus,
        "signal_delay_s": resources.notice,
        "array_parallelism": resources.parallel,
        "setup": list(resources.setup) or None,
        # A node that fails, or SLURM itself when it makes room, has the job queued again.
        "additional_parameters": {"requeue": True, **resources.sbatch},
        # Since SLURM 22.05, srun doesn't take the number of cores from sbatch.
        "srun_args": [f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=1"],
        **gpus,
    }


def refuse_used(runs: Sequence[ClusterRun], folder: Path) -> None:
    """Make sure that no run is under way, or waits in the queue, where these would run.

    Raises:
        UserError: one is, and what to do.
    """
    wanted = {run.output_dir for run in runs}
    for line in _submitted(folder):
        if wanted & set(line["folders"]) and (state := _state_of(line["job"])):
            raise UserError(
                f"OUTPUT_DIR {sorted(wanted & set(line['folders']))[0]}: job {line['job']} is to "
                f"run there ({state}): wait for it, end it (scancel {line['job']}), or choose "
                "another OUTPUT_DIR"
            )
    for run in runs:
        with run_lock(make_folder(Path(run.output_dir))):
            pass


def submit(executor: Executor, runs: Sequence[ClusterRun], folder: Path) -> list[Job[str]]:
    """Submit runs, several as an array, and note which jobs are to run where.

    Raises:
        UserError: sbatch refuses.
    """
    import submitit

    try:
        jobs = executor.submit_array(list(runs))
    except submitit.core.utils.FailedJobError as error:
        said = str(error).strip().splitlines() or ["it doesn't say why"]
        raise UserError(f"sbatch: {said[-1].removeprefix('sbatch: error: ')}") from None
    line = {
        "job": jobs[0].job_id.partition("_")[0],
        "submission": runs[0].submission,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "folders": [run.output_dir for run in runs],
        "words": runs[0].words,
    }
    append_line(folder / SUBMITTED, json.dumps(line))
    return jobs


def run_here(resources: Resources, runs: Sequence[ClusterRun], folder: Path) -> dict[str, str]:
    """Do runs on this machine, `resources.parallel` at a time, and wait for them.

    Returns:
        Why runs didn't finish, by OUTPUT_DIR.
    """
    left, running, failed = list(runs), list[tuple[ClusterRun, Any]](), dict[str, str]()
    executor = local_executor(resources, folder)
    while left or running:
        while left and len(running) < resources.parallel:
            run = left.pop(0)
            (job,) = executor.submit_array([run])
            running.append((run, job))
            print(f"{run.output_dir}: job {job.job_id}, says {job.paths.stdout}", flush=True)
        for run, job in [pair for pair in running if pair[1].done()]:
            running.remove((run, job))
            attempts = Attempts(run.output_dir, run.submission)
            then, why = attempts.outcome()
            if then != FINISHED:
                failed[run.output_dir] = why if then else f"{why}; see {job.paths.stderr}"
            print(
                f"{run.output_dir}: {then or 'ended'} after attempt {attempts.count()}", flush=True
            )
        time.sleep(PAUSE)
    return failed


def _submitted(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (folder / SUBMITTED).read_text(encoding="utf-8")
    except OSError:  # none; or OUTPUT_DIR can't be, which is told where it is made
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _state_of(job: str) -> str:
    """Return what SLURM says of a job that it hasn't done with, "" of one that it has."""
    if not shutil.which("squeue"):
        return ""
    said = subprocess.run(
        ["squeue", "--noheader", "--format=%T", "--jobs", job],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return ", ".join(sorted({*said.stdout.split()})) if said.returncode == 0 else ""
