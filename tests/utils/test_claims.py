"""Pieces of work that several processes share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from timesformer.utils.claims import Claims
from timesformer.utils.errors import UserError

HOLD = """
import fcntl, signal, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX, 1, 3)
print("held", flush=True)
signal.pause()
"""


def test_a_claim_goes_with_its_process(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no such locks")
    with Claims(tmp_path / "claims") as claims:
        other = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(claims.path)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        with other.stdout:
            assert other.stdout.readline() == "held\n"
        assert claims.take(2)
        assert not claims.take(3)
        other.kill()
        other.wait()
        with claims.holding(3):
            pass
        assert claims.take(3)


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be written: No such file or directory"):
        Claims(tmp_path / "nowhere" / "claims")
