"""Run a module as `python -m` does, and end when the process that started this one does.

    python -m timesformer.utils.following MODULE [WORDS ...]

Its stdin is a pipe whose other end that process holds, so that it is closed however the process
ends, even killed. Where Linux is, the system ends this one at once; elsewhere a thread does that
reads stdin, which may have to wait some seconds for an import to let it. Processes that this one
started notice by themselves: workers of torch's DataLoader within five seconds.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_with_parent() -> None:
    """Let the system kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _follow() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock Python wants when it ends
        pass
    os._exit(1)


if __name__ == "__main__":
    _end_with_parent()
    threading.Thread(target=_follow, daemon=True).start()
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
