"""Runs of the program, one or several ranks, forked from one process that has imported everything.

So a run costs what it does, not five seconds of imports; and as each is the first process of a
session of its own, whatever it leaves behind can be found.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from small_run import RECIPE, small_options

from timesformer.utils.errors import run_tool

# A busy machine takes longer: all limits of time here are multiplied by it.
PATIENCE = float(os.environ.get("FAULTS_PATIENCE", "1"))

if not hasattr(os, "fork"):
    pytest.skip("runs are forked, which this system can't", allow_module_level=True)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["timesformer.commands.run", "timesformer.commands.convert", "timesformer.models.vit"]
)


class Run:
    """A function that runs in a process, with its output in a file.

    Args:
        function: importable by its name; a `UserError` ends it with status 2, as of a command.
        args: its arguments.
        output: the file for stdout and stderr.
        env: environment variables.
        limits: of `resource.setrlimit`, e.g. {"RLIMIT_NOFILE": 64}.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *args: Any,
        output: Path,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.output = output
        with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
            from multiprocessing import forkserver

            forkserver.ensure_running()
        self.process = _CONTEXT.Process(
            target=_child, args=(function, args, str(output), dict(env or {}), dict(limits or {}))
        )
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def said(self) -> str:
        """Everything on stdout and stderr."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    @property
    def complaint(self) -> str:
        """The lines `error: …`."""
        return "\n".join(line for line in self.said.splitlines() if line.startswith("error: "))

    def wait(self, seconds: float) -> int | None:
        """Wait for the end and return the status; None if it is still running."""
        self.process.join(seconds * PATIENCE)
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL to the run alone: workers have to notice by themselves."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.join()

    def left_behind(self, seconds: float = 60) -> list[int]:
        """Processes of this run that are alive after it, some seconds later."""
        end = time.monotonic() + seconds * PATIENCE
        while (alive := _session(self.pid)) and time.monotonic() < end:
            time.sleep(0.2)
        return alive

    def clear(self) -> None:
        """End the run and all that it started."""
        for pid in (
            {self.pid, *_session(self.pid)} if self.process.is_alive() else _session(self.pid)
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()


def _child(
    function: Callable[..., object],
    args: Sequence[Any],
    output: str,
    env: dict[str, str],
    limits: dict[str, int],
) -> None:
    import resource

    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.update(env)
    for name, value in limits.items():
        which = getattr(resource, name)
        resource.setrlimit(which, (value, resource.getrlimit(which)[1]))
    run_tool(lambda: function(*args))


def _session(leader: int) -> list[int]:
    """Processes of a session that aren't zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                state, *fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == leader and state not in "ZX":
                    found.append(int(folder.name))
    return found


@contextlib.contextmanager
def running(
    function: Callable[..., object],
    *args: Any,
    output: Path,
    ranks: int = 1,
    env: Mapping[str, str] | None = None,
    limits: Mapping[str, int] | None = None,
    env_of: Callable[[int], Mapping[str, str]] = lambda rank: {},
    args_of: Callable[[int], Sequence[Any]] = lambda rank: (),
) -> Iterator[list[Run]]:
    """Start a function on some gloo ranks; at the end of the block nothing of them is left.

    Args:
        function: see `Run`.
        args: its arguments.
        output: file for what rank 0 says; others get `.1`, `.2`, … at the end of its name.
        ranks: number of processes; 1 is a process without ranks.
        env: for all of them.
        limits: for all of them.
        env_of: for each of them.
        args_of: more arguments for each of them.
    """
    common = dict(env or {})
    if ranks > 1:
        common |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        common |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    runs = []
    for rank in range(ranks):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        file = output.with_name(output.name + (f".{rank}" if rank else ""))
        runs.append(
            Run(
                function,
                *args,
                *args_of(rank),
                output=file,
                env=common | place | dict(env_of(rank)),
                limits=limits,
            )
        )
    try:
        yield runs
    finally:
        for run in runs:
            run.clear()


def finish(runs: Sequence[Run], seconds: float) -> list[int | None]:
    """Wait for all and return their statuses."""
    end = time.monotonic() + seconds * PATIENCE
    return [run.wait(max(0.0, (end - time.monotonic()) / PATIENCE)) for run in runs]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def words(data: Path, output: Path, **changes: Any) -> list[str]:
    """Words of the command line of a small run, see `small_run.small_options`."""
    return ["--cfg", str(RECIPE), *small_options(data, output, **changes)]


def command(name: str, argv: Sequence[str]) -> None:
    """Run `timesformer NAME …`."""
    from importlib import import_module

    import_module(f"timesformer.commands.{name.replace('-', '_')}").main(list(argv))


def lines(output: Path, split: str) -> list[dict[str, Any]]:
    """Lines of stats.jsonl, without one that was cut by a kill."""
    found = []
    for text in (output / "stats.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return [line for line in found if line.get("split") == split]
