"""Cores and memory as control groups limit them, of both versions, in trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.utils import limits
from timesformer.utils.processes import cores

GIB = 2**30


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write files below a root; `own` is what /proc/self/cgroup says."""
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")

    def write(own: str, **files: str) -> None:
        for name, text in {"proc/self/cgroup": own, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_where_nothing_is_known_nothing_is_limited(tree) -> None:
    assert (limits.cpu_quota(), limits.memory_left()) == (None, None)
    tree("0::/a\n", **{"cgroup/a/cpu.max": "max 100000", "cgroup/a/memory.max": "max"})
    assert (limits.cpu_quota(), limits.memory_left()) == (None, None)


def test_the_narrowest_of_all_groups_counts(tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(
        "0::/job/step\n",
        **{
            "cgroup/job/cpu.max": "150000 100000",
            "cgroup/job/step/cpu.max": "max 100000",
            "cgroup/job/memory.max": str(8 * GIB),
            "cgroup/job/memory.current": str(5 * GIB),
            "cgroup/job/memory.stat": f"anon 7\nactive_file 3\ninactive_file {GIB}\n",
            "proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {16 * 2**20} kB\n",
        },
    )
    assert limits.cpu_quota() == 1.5
    assert limits.memory_left() == 4 * GIB
    monkeypatch.setattr("timesformer.utils.processes.usable_cores", lambda: frozenset(range(64)))
    assert cores() == 2


def test_the_first_version_in_a_container_that_sees_its_own_group_as_the_root(tree) -> None:
    tree(
        "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
        **{
            "cgroup/cpu/cpu.cfs_quota_us": "400000",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
            "cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "cgroup/memory/memory.usage_in_bytes": str(GIB),
            "cgroup/memory/memory.stat": "total_inactive_file 0\n",
        },
    )
    assert (limits.cpu_quota(), limits.memory_left()) == (4.0, GIB)
