from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from timesformer.utils import retry


def failing(times: int, code: int) -> Callable[[], str]:
    left = [times]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise OSError(code, "broken")
        return "read"

    return work


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "WAITS", (0, 0))


def test_what_passes_is_waited_for() -> None:
    assert retry.persistently(failing(2, errno.ESTALE), "a.mp4") == "read"


def test_what_stays_is_raised() -> None:
    with pytest.raises(OSError, match="broken"):
        retry.persistently(failing(3, errno.EIO), "a.mp4")


def test_what_waiting_doesnt_mend_is_raised_at_once() -> None:
    work = failing(1, errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        retry.persistently(work, "a.mp4")
    assert work() == "read"
