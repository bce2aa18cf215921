"""What a container or a job leaves to this process of the machine: the limits of control groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP, PROC = Path("/sys/fs/cgroup"), Path("/proc")  # of Linux; elsewhere nothing is known


def cpu_quota() -> float | None:
    """Return how many cores' time this process may take; None where it isn't limited."""
    quotas = []
    for folder in _groups("cpu"):
        quota, period = _number(folder / "cpu.max", 0), _number(folder / "cpu.max", 1)
        if quota is None:
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
        if quota and period and quota > 0:  # -1 is no limit
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_left() -> int | None:
    """Return the bytes of memory that are left to this process; None where it isn't known."""
    left = []
    if available := _field(PROC / "meminfo", "MemAvailable:"):
        left.append(available * 1024)
    for folder in _groups("memory"):
        limit = _number(folder / "memory.max")
        used = _number(folder / "memory.current")
        cached = _field(folder / "memory.stat", "inactive_file")
        if limit is None:
            limit = _number(folder / "memory.limit_in_bytes")
            used = _number(folder / "memory.usage_in_bytes")
            cached = _field(folder / "memory.stat", "total_inactive_file")
        if limit is not None and used is not None:
            left.append(max(0, limit - used + (cached or 0)))  # files are dropped where it is short
    return min(left, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, from its own to the outermost.

    Within a container, these are below the root as it sees it, whatever their names say.
    """
    lines: list[str] = []
    with suppress(OSError):
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # the second version, which has one tree
            root = CGROUP
        elif controller in controllers.split(","):
            root = CGROUP / controller
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for length in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:length])


def _number(path: Path, place: int = 0) -> int | None:
    """Return a whole number of a file of few; None where there is no such file, or it says max."""
    with suppress(OSError, ValueError, IndexError):
        return int(path.read_text().split()[place])
    return None


def _field(path: Path, name: str) -> int | None:
    with suppress(OSError):
        found = re.search(rf"^{re.escape(name)}\s+(\d+)", path.read_text(), re.MULTILINE)
        return int(found[1]) if found else None
    return None
