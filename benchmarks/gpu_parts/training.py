"""Train and test a tiny model on Synthetic under torchrun, as one rank; then try DDP itself.

python benchmarks/gpu_parts/training.py --device cuda --folder DIR

One rank alone needs no process group, so run_net.py makes none; `one_rank.py` therefore makes one
(nccl on a GPU, gloo on the CPU), wraps the golden model in DistributedDataParallel, and compares
the losses of its training with the golden ones.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

from small_run import stats
from small_training import TORCHRUN, end_with, losses, must_run, parse_args, run_net_words

ONE_RANK = Path(__file__).with_name("one_rank.py")


def train(folder: Path, device: str) -> None:
    """Run run_net.py under torchrun and print what came out.

    Raises:
        SystemExit: the run failed, was elsewhere than on the device, or isn't whole.
    """
    output = folder / "training"
    amp = "bf16" if device == "cuda" else "none"
    must_run(
        run_net_words(folder, output, device, TRAIN__AMP=amp, TEST__AMP=amp, TEST__ENABLE=True),
        TORCHRUN,
    )
    start, found = stats(output, "start")[0], list(losses(output).values())
    last, test = stats(output, "train_epoch")[-1], stats(output, "test_final")[-1]
    print(
        f"run_net.py under torchrun: {len(found)} steps of {start['global_batch']} clips on "
        f"{start['device']}, TRAIN.AMP {amp};\n"
        f"loss {found[0]:.3f} at the first step, {found[-1]:.3f} at the last; {test['videos']} "
        f"videos tested, top-1 {test['top1_acc']:.0f} % (this is too short to learn much)"
    )
    if device == "cuda":
        print(f"peak memory {last['mem']:.2f} GiB")
    if not start["device"].startswith(device):
        sys.exit(f"the run was on {start['device']}, not on {device}")
    if not all(map(math.isfinite, found)):
        sys.exit("a loss isn't finite")


def main() -> None:
    """Entry point."""
    args = parse_args(__doc__)
    train(args.folder, args.device)
    print("One rank alone makes run_net.py start no process group, so DDP is tried by itself:")
    command = [sys.executable, *TORCHRUN, str(ONE_RANK), "--device", args.device]
    env = os.environ | {"OMP_NUM_THREADS": "1", "NCCL_DEBUG": "WARN"}
    sys.stdout.flush()  # before what the child prints
    done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        end_with(done, ONE_RANK.name)


if __name__ == "__main__":
    main()
