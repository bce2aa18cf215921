"""One run for one folder: two would mix their lines, and each delete what the other is writing."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timesformer.utils.claims import HELD, fcntl
from timesformer.utils.ending import at_sudden_end
from timesformer.utils.errors import UserError
from timesformer.utils.files import LOCK_NAME, sweep, temporary_of
from timesformer.utils.launchers import job
from timesformer.utils.processes import is_alive

PAUSE = 0.02  # seconds until the next attempt, where another one is taking a lock over
UNWRITTEN = 60.0  # seconds after which a lock without content is of a process that died at once
# What a file system says that has no hard links, or a kernel that forbids them.
WITHOUT_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}

logger = logging.getLogger(__name__)

_SINCE = time.strftime("%Y-%m-%d %H:%M:%S")
_held: dict[str, int] = {}  # folder -> how many times this process has it


@contextlib.contextmanager
def run_lock(folder: str | Path, option: str = "OUTPUT_DIR") -> Iterator[None]:
    """Hold a folder's lock; this process may take it several times over.

    `option` is what names the folder, for the message.

    The lock of a process of this machine that is gone is taken over, and the log says so; and that
    of an earlier start of this SLURM job, which was requeued. A process of another machine, or of
    another container on it, can't be asked: its file has to be deleted by hand if its run is over.

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
    if _read(path) != _me():
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # what ended the run is to be told, not this
        logger.warning("%s: can't be removed: %s; the next run takes it over", path, error.strerror)


def _take(path: Path, option: str) -> None:
    for _ in range(100):
        try:
            if _put(path):
                return
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror}") from error
        _clear_if_stale(path, option)
    raise UserError(f"{path}: several runs want this folder at once: start one of them")


def _put(path: Path) -> bool:
    """Put our lock there with its content, at once; False if there is one already.

    Made empty and then written, one of a process that is killed in between would be nobody's, and
    keep everybody out for a while.
    """
    sweep(path.parent, path.name)
    draft, text = temporary_of(path), json.dumps(_me())
    try:
        draft.write_text(text, encoding="utf-8")
        os.link(draft, path)
    except FileExistsError:
        return _read(path) == _me()  # a server may have done it, and told so the second time only
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        return _put_in_two_steps(path, text)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _put_in_two_steps(path: Path, text: str) -> bool:
    """Do it on a file system whose files have one name each."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:  # an empty one would keep everybody out
        path.unlink(missing_ok=True)
        raise
    return True


def _clear_if_stale(path: Path, option: str) -> None:
    """Remove the lock of a process that is gone.

    Raises:
        UserError: it isn't gone, or can't be asked.
    """
    holder, host = _read(path), platform.node()
    if holder is None:
        return  # released meanwhile
    elsewhere = holder.get("host") != host or holder.get("processes") not in (None, _processes())
    if not _is_former_start(holder) and (elsewhere or _is_running(path, holder)):
        where = f" on {holder.get('host', 'a machine')}" if elsewhere else ""
        if elsewhere and holder.get("host") == host:
            where = f" in another container on {host}"
        if isinstance(its := holder.get("job"), dict) and its.get("id"):
            where += f", SLURM job {its['id']}"
        raise UserError(
            f"{path.parent} is in use by another run, process {holder.get('pid', '?')}{where} "
            f"(since {holder.get('since', '?')}): choose another {option}, or end that run; if "
            f"it is over, delete {path}"
        )
    try:
        removed = _remove(path, holder)
    except FileNotFoundError:
        return  # another one has removed it meanwhile
    except OSError as error:
        raise UserError(f"{path}: can't be deleted: {error.strerror}") from error
    if removed:
        logger.warning(
            "%s: the run of process %s, which is gone, left its lock: taken over",
            *(path.parent, holder.get("pid")),
        )


def _remove(path: Path, holder: dict[str, Any]) -> bool:
    """Remove a lock if it still is this holder's; tell whether it was.

    One process at a time: else a second one would remove the lock that the first has just taken.
    The system holds them apart, by the old file, so nothing is left of one that is killed.
    """
    with path.open("r+b", buffering=0) as file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD:
                    time.sleep(PAUSE)
                    return False
                # else there are no locks on this file system: do without
        # Read through this very file: closing it, opened a second time, would end our lock.
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return False
        if _parsed(file.read()) != holder:
            return False
        path.unlink()
        return True


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
    who: dict[str, Any] = {"host": platform.node(), "pid": pid, "start": _start_of(pid)}
    who |= {"processes": _processes(), "since": _SINCE}
    return {**who, "job": known} if (known := job()) else who


def _processes() -> str | None:
    """Return which processes the numbers are of; None where Linux isn't.

    Containers number theirs anew, also where they have the machine's name.
    """
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (it is no path)
    return None


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
        return _parsed(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError:
        return _parsed(b"")


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"host": platform.node()}
