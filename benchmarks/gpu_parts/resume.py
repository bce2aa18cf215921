"""Kill a training in the middle of an epoch, run the same command again, and compare.

python benchmarks/gpu_parts/resume.py --device cuda --folder DIR

The run that was killed and resumed has to end with the weights and optimizer state of one that
wasn't, bit for bit. Where a GPU's kernels don't give the same bits twice, a second undisturbed run
shows how far runs are apart anyway. Exits with 1 if the resumed run is further off than that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from small_run import PYTHONPATH, ROOT, stats
from small_training import losses, must_run, parse_args, run_net_words
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from timesformer.utils.checkpoint import get_path_to_checkpoint, read_checkpoint

EPOCHS = 3
PATIENCE = 60.0  # seconds until the run must have come to its second epoch
SLACK = 10  # times as far as two undisturbed runs are apart


class Outcome(NamedTuple):
    """What a run left: tensors by name, and losses by (epoch, step)."""

    tensors: Mapping[str, Tensor]
    losses: Mapping[tuple[str, str], float]

    def digest(self) -> str:
        """Return a short name for these very bits."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            value = self.tensors[name].contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()[:12]

    def difference(self, other: Outcome) -> float:
        """Return the greatest difference of any number; infinite if others are there."""
        if self.tensors.keys() != other.tensors.keys() or self.losses.keys() != other.losses.keys():
            return float("inf")
        tensors = ((self.tensors[k] - other.tensors[k]).abs().max() for k in self.tensors)
        steps = (abs(self.losses[k] - other.losses[k]) for k in self.losses)
        return max(max(map(float, tensors)), max(steps))


def outcome(output: Path) -> Outcome:
    """Read the last checkpoint and the losses of a finished run."""
    content = read_checkpoint(get_path_to_checkpoint(output, EPOCHS))
    kept: dict[str, Any] = {k: content[k] for k in ("model_state", "optimizer_state")}
    leaves, _ = tree_flatten_with_path(kept)
    tensors = {keystr(path): leaf for path, leaf in leaves if isinstance(leaf, Tensor)}
    return Outcome(tensors, losses(output))


def second_epoch_is_under_way(output: Path) -> bool:
    """Return whether the first epoch left a checkpoint and some steps of the second are done."""
    if not get_path_to_checkpoint(output, 1).is_file():
        return False
    with contextlib.suppress(ValueError):  # a line that is being written
        steps = [line for line in stats(output, "train_iter") if line["epoch"].startswith("2/")]
        return len(steps) >= 3
    return False


def kill_in_the_middle(words: list[str], output: Path) -> None:
    """Start the run and send it SIGKILL in its second epoch.

    Raises:
        SystemExit: it ended by itself, or didn't get so far.
    """
    env = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools" / "run_net.py"), *words]
    with (output.parent / "killed.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            if second_epoch_is_under_way(output):
                break
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    if status != -signal.SIGKILL or not second_epoch_is_under_way(output):
        print((output.parent / "killed.log").read_text()[-2000:], file=sys.stderr)
        sys.exit(
            f"the run that was to be killed ended with status {status} before its second epoch"
        )
    if get_path_to_checkpoint(output, 2).exists():
        sys.exit("the run was through its second epoch when it was killed")


def main() -> None:
    """Entry point."""
    args = parse_args(__doc__)
    # fp16 has one thing more to remember than the others: the scale of the loss.
    amp = "fp16" if args.device == "cuda" else "none"

    def words(output: Path) -> list[str]:
        changes = {"SOLVER__MAX_EPOCH": EPOCHS, "TRAIN__AMP": amp, "TRAIN__EVAL_PERIOD": EPOCHS}
        return run_net_words(args.folder, output, args.device, **changes)

    whole, killed, twin = (args.folder / name for name in ("whole", "killed", "twin"))
    must_run(words(whole))
    kill_in_the_middle(words(killed), killed)
    done = stats(killed, "train_iter")[-1]
    must_run(words(killed))
    first_epoch = stats(killed, "start")[-1]["first_epoch"]
    print(
        f"TRAIN.AMP {amp}; killed after step {done['iter']} of epoch {done['epoch']}; the same "
        f"command went on with epoch {first_epoch}"
    )
    if first_epoch != 2:
        sys.exit("it should have gone on with epoch 2")
    one, other = outcome(whole), outcome(killed)
    off = one.difference(other)
    print(f"weights and optimizer: {one.digest()} undisturbed, {other.digest()} resumed")
    if one.digest() == other.digest() and off == 0:
        print(f"bit-equal, and so are the losses of all {len(one.losses)} steps")
        return
    must_run(words(twin))
    anyway = one.difference(outcome(twin))
    print(f"greatest difference: {off:.1e}; of two undisturbed runs: {anyway:.1e}")
    if not off <= SLACK * anyway:
        sys.exit("the resumed run is further off than runs are from each other")
    print("not bit-equal, but this device doesn't give the same bits twice anyway")


if __name__ == "__main__":
    main()
