"""What the parts that train have in common: data, options, and running tools/run_net.py."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from small_run import RECIPE, run_tool, small_options, stats

from timesformer.prepare.synthetic_writer import SyntheticSpec, write_dataset

# 12 steps of 8 clips an epoch: enough that an epoch can be interrupted in its middle.
DATA = SyntheticSpec(seed=0, train=96, val=12, test=12)
TORCHRUN = (
    *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"),
    *("--local-addr", "127.0.0.1"),  # the machine's own name may lead nowhere
)


def parse_args(description: str | None) -> argparse.Namespace:
    """Read --device and --folder, which are those of all parts that train."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="for data, runs")
    return parser.parse_args()


def run_net_words(folder: Path, output: Path, device: str, **changes: Any) -> list[str]:
    """Return the words after `run_net.py`; makes the videos if they aren't there."""
    data = folder / "synthetic"
    write_dataset(data, DATA)
    changes = {"NUM_GPUS": int(device == "cuda"), "TEST__ENABLE": False} | changes
    return ["--cfg", str(RECIPE), *small_options(data, output, **changes)]


def must_run(words: list[str], launcher: tuple[str, ...] = ()) -> None:
    """Run run_net.py to its end; a failure ends this program too, with what it said."""
    done = run_tool("run_net.py", *words, launcher=launcher)
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-5:]))
        end_with(done, "tools/run_net.py")


def end_with(done: subprocess.CompletedProcess[str], name: str) -> NoReturn:
    """End this program with the errors of another, without what torchrun says after them."""
    errors = re.split(r"^E\d{4} .*torch/distributed/elastic", done.stderr, flags=re.MULTILINE)[0]
    print(errors or done.stderr, file=sys.stderr)
    sys.exit(f"{name} ended with status {done.returncode}")


def losses(output: Path) -> dict[tuple[str, str], float]:
    """Return the loss of every (epoch, step); of one that was done twice, the later."""
    lines = stats(output, "train_iter")
    return {(line["epoch"], line["iter"]): line["loss"] for line in lines}
