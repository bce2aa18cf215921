"""A process that follows another one ends with it, even where no other thread gets a turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import PYTHONPATH

# Holds Python's lock for years, as imports do for seconds.
STUBBORN = """
import re
print("busy", flush=True)
re.match("(a+)+$", "a" * 64 + "b")
"""
LEADER = """
import subprocess, sys
words = [sys.executable, "-m", "timesformer.utils.following", "stubborn"]
follower = subprocess.Popen(words, stdin=subprocess.PIPE)
print(follower.pid, flush=True)
follower.wait()
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a thread for it alone")
def test_a_busy_process_ends_with_the_one_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), PYTHONPATH])}
    words = [sys.executable, "-c", LEADER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as leader:
        assert leader.stdout is not None
        follower = int(leader.stdout.readline())
        try:
            assert leader.stdout.readline() == "busy\n"
            time.sleep(0.05)
            assert running(follower)
            leader.kill()
            leader.wait()
            end = time.monotonic() + 5
            while running(follower) and time.monotonic() < end:
                time.sleep(0.01)
            assert not running(follower)
        finally:
            if running(follower):
                os.kill(follower, signal.SIGKILL)
