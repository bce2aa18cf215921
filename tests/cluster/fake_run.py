"""A run that trains nothing and does in each attempt what FAKE_PLAN says; it imports no torch.

FAKE_PLAN has an action for each attempt, with a comma between; "a|b": b on rank 1. The last is
repeated.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

PROGRAM = (sys.executable, __file__)


def main() -> None:
    folder = Path(sys.argv[len(sys.argv) - sys.argv[::-1].index("OUTPUT_DIR")])
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    note = folder / f"started_{rank}"
    with note.open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('SLURM_STEP_NUM_TASKS', '-')}\n")
    number = len(note.read_text().splitlines())
    plan = os.environ["FAKE_PLAN"].split(",")
    actions = plan[min(number, len(plan)) - 1].split("|")
    action = actions[min(rank, len(actions) - 1)]

    def save(*_: object) -> None:
        (folder / "checkpoints" / f"checkpoint_epoch_00000_step_{number:07d}.pyth").touch()
        print("SIGTERM: saved; the same command goes on", file=sys.stderr)
        sys.exit(75)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if action == "deaf" else save)
    (folder / f"ready_{rank}_{number}").touch()
    if action in ("done", "advance"):
        (folder / "checkpoints" / f"checkpoint_epoch_{number:05d}.pyth").touch()
    if action in ("wait", "deaf"):
        time.sleep(60)
    if action == "mistake":
        print("error: train.csv: no such file\n", file=sys.stderr)
        sys.exit(2)
    if action == "lost":
        print("error: another rank has ended; its own message says why", file=sys.stderr)
        sys.exit(2)
    if action == "interrupted":
        sys.exit(130)
    if action in ("crash", "advance"):
        print("Traceback\nRuntimeError: out of memory", file=sys.stderr)
        sys.exit(1)
    assert action == "done", action


if __name__ == "__main__":
    main()
