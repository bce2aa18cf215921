"""A crash of a worker process costs one item."""

from __future__ import annotations

import os

import pytest

from timesformer.utils.errors import UserError
from timesformer.utils.parser import CommandParser
from timesformer.utils.processes import cores, in_processes

DEADLY = 1


def square_or_die(item: int) -> int:
    if item == DEADLY:
        os._exit(1)
    return item**2


def refuse(item: int) -> int:
    raise UserError(f"not {item}")


def test_a_crash_loses_no_other_item() -> None:
    """0 is done before the crash, 2 is under way in the same process."""
    results = in_processes(square_or_die, range(3), workers=1, crashed=lambda item: -item)
    assert sorted(results) == [(0, 0), (1, -1), (2, 4)]


def test_no_workers_means_this_process() -> None:
    results = in_processes(lambda item: (item, os.getpid()), [5], 0, lambda item: (item, 0))
    assert list(results) == [(5, (5, os.getpid()))]


def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(UserError, match="not 7"):
        list(in_processes(refuse, [7, 8], 0, lambda item: item))


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer.utils.processes.cpu_quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert cores() == 3
    parser = CommandParser("x", "X.", "")
    parser.add_workers()
    assert parser.parse([]).workers == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()
