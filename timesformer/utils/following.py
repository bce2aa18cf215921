"""Run a module as `python -m` does, and end when the process that started this one does.

    python -m timesformer.utils.following MODULE [WORDS ...]

Its stdin is a pipe whose other end that process holds, so that it is closed however the process
ends, even killed.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _follow() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock Python wants when it ends
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
