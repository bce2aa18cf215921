"""One run for one folder: two would mix their lines, and each delete what the other is writing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timesformer.utils.ending import at_sudden_end
from timesformer.utils.errors import UserError
from timesformer.utils.files import LOCK_NAME
from timesformer.utils.launchers import job
from timesformer.utils.processes import is_alive

PAUSE = 0.02  # seconds until the next attempt, where another one is taking a lock over
UNWRITTEN = 60.0  # seconds after which a lock without content is of a process that died at once

logger = logging.getLogger(__name__)

_SINCE = time.strftime("%Y-%m-%d %H:%M:%S")
_held: dict[str, int] = {}  # folder -> how many times this process has it


@contextlib.contextmanager
def run_lock(folder: str | Path, option: str = "OUTPUT_DIR") -> Iterator[None]:
    """Hold a folder's lock; this process may take it several times over.

    `option` is what names the folder, for the message.

    The lock of a process of this machine that is gone is taken over, and the log says so; and that
    of an earlier start of this SLURM job, which was requeued. A process of another machine can't be
    asked: its file has to be deleted by hand if its run is over.

    Raises:
        UserError: another run has it.
    """
    path = Path(folder).absolute() / LOCK_NAME
    key = str(path)
    if not _held.get(key):
        _take(path, option)
    _held[key] = _held.get(key, 0) + 1
    try:
        with at_sudden_end(lambda: _release(path)):
            yield
    finally:
        _held[key] -= 1
        if not _held[key]:
            del _held[key]
            _release(path)


def _release(path: Path) -> None:
    if _read(path) == _me():
        path.unlink(missing_ok=True)


def _take(path: Path, option: str) -> None:
    for _ in range(100):
        try:
            file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w")
        except FileExistsError:
            _clear_if_stale(path, option)
            continue
        except OSError as error:
            raise UserError(f"{path.parent}: can't be written: {error.strerror}") from error
        try:
            with file:
                json.dump(_me(), file)
        except OSError as error:  # an empty one would keep everybody out
            path.unlink(missing_ok=True)
            raise UserError(f"{path}: can't be written: {error.strerror}") from error
        return
    turn = _turn_of(path)
    rest = f"; if none is running, delete {turn}" if turn.exists() else ""
    raise UserError(f"{path}: several runs want this folder at once: start one of them{rest}")


def _clear_if_stale(path: Path, option: str) -> None:
    """Remove the lock of a process that is gone.

    Raises:
        UserError: it isn't gone, or can't be asked.
    """
    holder, host = _read(path), platform.node()
    if holder is None:
        return  # released meanwhile
    if not _is_former_start(holder) and (holder.get("host") != host or _is_running(path, holder)):
        where = "" if holder.get("host") == host else f" on {holder.get('host', 'a machine')}"
        if isinstance(its := holder.get("job"), dict) and its.get("id"):
            where += f", SLURM job {its['id']}"
        raise UserError(
            f"{path.parent} is in use by another run, process {holder.get('pid', '?')}{where} "
            f"(since {holder.get('since', '?')}): choose another {option}, or end that run; if "
            f"it is over, delete {path}"
        )
    # One at a time: else a second one would remove the lock that the first has just taken.
    turn = _turn_of(path)
    try:
        os.close(os.open(turn, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        if _age(turn) > UNWRITTEN:  # of a process that died at once
            turn.unlink(missing_ok=True)
        time.sleep(PAUSE)
        return
    try:
        if _read(path) == holder:
            path.unlink()
            logger.warning(
                "%s: the run of process %s, which is gone, left its lock: taken over",
                *(path.parent, holder.get("pid")),
            )
    finally:
        turn.unlink(missing_ok=True)


def _turn_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.turn")


def _age(path: Path) -> float:
    """Return the seconds since a file was written; 0 if it is gone.

    Or until it will have been: where the clock went back, that would be for ever.
    """
    try:
        return abs(time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0


def _is_running(path: Path, holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int):  # not written yet, or never
        return _age(path) < UNWRITTEN
    # A number is given to another process some day: its start tells them apart.
    return is_alive(pid) and holder.get("start") in (None, _start_of(pid))


def _is_former_start(holder: dict[str, Any]) -> bool:
    """Tell whether a process is of this SLURM job before it was requeued, which ended it."""
    ours, its = job(), holder.get("job")
    if not ours or not isinstance(its, dict) or its.get("start") == ours["start"]:
        return False
    return all(its.get(key) == ours[key] for key in ("cluster", "id"))


def _me() -> dict[str, Any]:
    pid = os.getpid()
    who = {"host": platform.node(), "pid": pid, "start": _start_of(pid), "since": _SINCE}
    return {**who, "job": known} if (known := job()) else who


def _start_of(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; None where Linux isn't."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a lock says: {} if nothing yet, None if there is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"host": platform.node()}
    return said if isinstance(said, dict) else {"host": platform.node()}
