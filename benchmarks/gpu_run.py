"""Run the parts of a check: each a program with a time limit that leaves nothing behind.

Nothing but the standard library is needed here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"
LAST_LINES = 25
WIDTH = 300  # of a line of someone else's output
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Part:
    """Something to try.

    Attributes:
        name: a few words.
        purpose: what is tried, for somebody who doesn't know the project.
        words: command line, after the interpreter.
        limit: seconds that it may take.
        skip: why it isn't tried, if so.
    """

    name: str
    purpose: str
    words: Sequence[str]
    limit: float
    skip: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a part."""

    part: Part
    status: str
    seconds: float
    text: str
    why: str = ""


def say(line: str) -> None:
    """Tell a person who waits how far it is; not part of the report."""
    print(f"gpu_check: {line.rstrip()}", file=sys.stderr, flush=True)


def descendants() -> list[int]:
    """Return the processes that this one started, and those that they did."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone by now
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, queue = [], [os.getpid()]
    while queue:
        mine = children.get(queue.pop(), [])
        found += mine
        queue += mine
    return found


def adopt_orphans() -> None:
    """Become the parent of processes whose own ends, so that none escapes `end_descendants`."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    except (OSError, AttributeError):
        say("no prctl here: what a part leaves running may go on")


def end_descendants() -> None:
    """Kill what a part left running; torchrun's workers aren't in its process group."""
    for _ in range(2):  # one may have started another meanwhile
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def tail(text: str, lines: int) -> str:
    """Return the last lines, none too long."""
    return "\n".join(line[:WIDTH] for line in text.rstrip().splitlines()[-lines:])


def run(part: Part, seconds: float, env: Mapping[str, str], folder: Path, cwd: Path) -> Result:
    """Run a part for at most so many seconds; nothing of it goes on after.

    Args:
        part: what to run.
        seconds: for it.
        env: variables that it sees.
        folder: for its output.
        cwd: where it runs.
    """
    out, err = folder / "stdout", folder / "stderr"
    begun, why = time.monotonic(), ""
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *part.words],
            env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        try:
            status = process.wait(seconds)
            why = f"status {status}" if status else ""
        except subprocess.TimeoutExpired:
            why = f"stopped after {seconds:.0f} s"
        finally:
            process.kill()
            end_descendants()
            process.wait()
    took = time.monotonic() - begun
    said, errors = (p.read_text(encoding="utf-8", errors="replace") for p in (out, err))
    if not why:
        return Result(part, PASSED, took, tail(said, 80))
    text = [tail(said, 60), f"FAILED ({why}); the last lines of its errors:"]
    text.append(tail(errors, LAST_LINES) or "(none)")
    return Result(part, FAILED, took, "\n".join(filter(None, text)), why)
