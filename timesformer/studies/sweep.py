"""Does the runs of a plan that are missing, some at a time, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch

from timesformer.studies.plan import Run
from timesformer.studies.results import finished
from timesformer.utils.checkpoint import has_checkpoint
from timesformer.utils.errors import sigterm_unwinds
from timesformer.utils.files import make_folder, write_text
from timesformer.utils.processes import cores
from timesformer.utils.text import counted

OUTPUT = "output.txt"  # of a run's process, in its folder
COMMAND = "command.txt"  # that starts it
PAUSE = 0.1  # seconds between two looks at the processes
PATIENCE = 20.0  # seconds that they have to end when they are asked to


class _Child(NamedTuple):
    run: Run
    process: subprocess.Popen[bytes]
    slot: int
    since: float


def at_once(line: str) -> None:
    """Print a line that is seen now, also in a file: hours may pass until the next one."""
    print(line, flush=True)


def sweep(
    runs: Mapping[str, Run], jobs: int, say: Callable[[str], None] = at_once
) -> dict[str, str]:
    """Do what isn't complete, in order; a run that fails doesn't stop the others.

    Args:
        runs: each after those that it needs.
        jobs: processes at a time.
        say: told of each run that ends.

    Returns:
        What went wrong, by the name of the run.
    """
    left = missing(runs)
    total, done, failed = len(left), 0, dict[str, str]()
    start = time.monotonic()
    with _ended_with_us() as children:
        while left or children:
            for run in _ready(left, failed, children):
                if len(children) == jobs:
                    break
                slot = min({*range(jobs)} - {child.slot for child in children})
                children.append(_start(left.pop(run.name), slot, jobs))
            for child in [c for c in children if c.process.poll() is not None]:
                children.remove(child)
                _let_go(child)
                done += 1
                outcome = _top1(child)
                if problem := _problem(child):
                    failed[child.run.name] = problem
                    outcome = f"failed: {problem}"
                rest = _rest(time.monotonic() - start, done, total)
                say(f"[{done}/{total}] {child.run.name}: {outcome}{rest}")
            for name in [n for n, run in left.items() if failed.keys() & set(run.needs)]:
                need = next(n for n in left.pop(name).needs if n in failed)
                failed[name] = f"needs {need}, which failed"
                done += 1
                say(f"[{done}/{total}] {name}: not run: {failed[name]}")
            time.sleep(PAUSE)
    return failed


def child_command() -> list[str]:
    """Return the words that start the process of a run, before those that say which."""
    return [sys.executable, "-m", "timesformer.utils.following", "timesformer", "run"]


def missing(runs: Mapping[str, Run]) -> dict[str, Run]:
    """Return the runs that aren't complete, and those whose models these need and can't read."""
    left = {name for name, run in runs.items() if not finished(run)}
    for name in reversed([*runs]):  # whatever needs a run comes after it
        if name in left:
            needs = set(runs[name].needs) - left
            left |= {need for need in needs if not has_checkpoint(runs[need].folder)}
    return {name: run for name, run in runs.items() if name in left}


def _ready(
    left: Mapping[str, Run], failed: Mapping[str, str], children: Sequence[_Child]
) -> list[Run]:
    """Return the runs that could start: what they need is complete."""
    missing = left.keys() | failed.keys() | {child.run.name for child in children}
    return [run for run in left.values() if not missing & set(run.needs)]


def _start(run: Run, slot: int, jobs: int) -> _Child:
    make_folder(run.folder)
    write_text(run.folder / COMMAND, f"{run.command}\n")
    words = [*child_command(), *run.words]
    with (run.folder / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            words,
            # Open as long as this process is there: see `utils/following.py`.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | _share(run, slot, jobs),
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
    return _Child(run, process, slot, time.monotonic())


def _let_go(child: _Child) -> None:
    assert child.process.stdin is not None
    child.process.stdin.close()
    child.process.wait()


def _share(run: Run, slot: int, jobs: int) -> dict[str, str]:
    """Return the variables that give a process its share of cores and GPUs."""
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(cores() // jobs or 1)}
    if jobs > 1 and (count := run.cfg.NUM_GPUS):
        mine = visible_gpus()[slot * count : (slot + 1) * count]
        share["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return share


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if said := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return said.split(",")
    return [str(i) for i in range(torch.cuda.device_count())]


def _problem(child: _Child) -> str:
    """Say what went wrong with a run whose process has ended; "" if nothing did."""
    status, folder = child.process.returncode, child.run.folder
    if status == 0:
        return "" if finished(child.run) else f"ended without a test; see {folder / OUTPUT}"
    lines = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")] or [*filter(str.strip, lines)]
    last = errors[-1].removeprefix("error: ") if errors else "it said nothing"
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"{last} ({how}; see {folder / OUTPUT})"


def _top1(child: _Child) -> str:
    """Say what a run found, "" if it found nothing."""
    stats = finished(child.run)
    seconds = timedelta(seconds=round(time.monotonic() - child.since))
    return f"top-1 {stats['top1_acc']:.1f} % in {seconds}" if stats else ""


def _rest(seconds: float, done: int, total: int) -> str:
    if done == total:
        return ""
    return f"; {timedelta(seconds=round(seconds / done * (total - done)))} to go"


@contextmanager
def _ended_with_us() -> Iterator[list[_Child]]:
    """Give a list of processes that are ended with the block, also by Ctrl-C or SIGTERM."""
    children: list[_Child] = []
    try:
        with sigterm_unwinds():
            yield children
    finally:
        for child in children:
            child.process.terminate()
        until = time.monotonic() + PATIENCE
        for child in children:
            try:
                child.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
            _let_go(child)


def counted_runs(runs: int, left: int) -> str:
    """Say how many runs there are, and how many are left to do."""
    complete = f", {runs - left:,} complete" if left < runs else ""
    return f"{counted(runs, 'run')}{complete}, {left:,} to do"
