"""What training takes, from rates: GPUs, cores that decode, bandwidth of storage, hours.

    python benchmarks/planning.py
    python benchmarks/planning.py --gpu h100 --mfu 0.4 --gpus 8 32

Nothing is measured here. A GPU is taken at `--mfu` of its peak, 0.30 unless you know better: what
published trainings of models of this size reach (0.23 to 0.29 on A100 and H100). Decoding is as
measured on one core (benchmarks/results/loading_cpu.txt, and 90 ms for 250 frames of 340×256).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from timesformer.utils.peak_rates import FLOPS_PER_MAC, PEAKS
from timesformer.utils.text import format_table

RESULTS = Path(__file__).parent / "results" / "loading_cpu.txt"
PEAK = {name.lower(): PEAKS[name]["bf16"] for name in ("A100", "H100")}
FRAME_MS = 90 / 250  # of one core, for a frame of 340×256, with those that are wanted converted
EPOCHS = 15  # of every recipe below


class Job(NamedTuple):
    """A recipe and its data.

    Attributes:
        name: of the table.
        videos: of the training list.
        gmacs: 10⁹ multiply-adds of a clip's forward pass.
        frames: that are decoded for a clip: all that it spans.
        megabytes: that are read for a clip.
    """

    name: str
    videos: int
    gmacs: float
    frames: int
    megabytes: float


# Sizes of files: K400 at 340×256, about 0.55 MB for 10 s; SSv2 as published, 19.4 GB of 220,847
# videos, mostly below 50 frames at 12/s; HowTo100M at 340×256 likewise, the seconds that a clip
# covers. A sampling rate of 32 spans 32 frames for each of the clip's.
JOBS = (
    Job("K400, 8×32", 240_000, 195.8, 256, 0.55),
    Job("K400, 96×4 (L)", 240_000, 2379.9, 300, 0.55),
    Job("SSv2, 8", 168_913, 195.8, 46, 0.09),
    Job("SSv2, 64 (L)", 168_913, 1579.2, 46, 0.09),
    Job("HowTo100M, 8×32", 85_000, 195.8, 256, 0.47),
    Job("HowTo100M, 96×32", 85_000, 2379.9, 3072, 5.6),
)


def gain_of_copies() -> float:
    """Return how many times as fast clips load from the copies of `timesformer prepare-data`."""
    text = RESULTS.read_text(encoding="utf-8")
    found = re.search(r"^training clip +([\d.]+)", text, re.MULTILINE)
    copies = re.search(r"^ +of a prepared file +([\d.]+)", text, re.MULTILINE)
    assert found and copies, f"{RESULTS}: its lines have changed"  # noqa: PT018
    return float(copies[1]) / float(found[1])


def rounded(number: float) -> str:
    """Return two digits: no rate here is known better."""
    return f"{float(f'{number:.2g}'):,.15g}"


def plan(gpu: str, mfu: float, gpus: list[int]) -> str:
    """Return the table."""
    gain = gain_of_copies()
    rows: list[tuple[object, ...]] = [
        ("training", "GPUs", "clips/s", "cores, as they are", "of copies", "MB/s", "hours")
    ]
    for job in JOBS:
        rate = PEAK[gpu] * mfu / (FLOPS_PER_MAC["train"] * job.gmacs / 1e3)
        cores = rate * job.frames * FRAME_MS / 1e3
        hours = job.videos * EPOCHS / rate / 3600
        for count in gpus:
            needs = [count * need for need in (rate, cores, cores / gain, rate * job.megabytes)]
            rows.append((job.name, count, *map(rounded, needs), rounded(hours / count)))
    return format_table(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpu", choices=PEAK, default="h100")
    parser.add_argument("--mfu", type=float, default=0.3, help="share of the peak (0.3)")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    args = parser.parse_args()
    print(f"{args.gpu}, {args.mfu:.0%} of {PEAK[args.gpu]:.0f} TFLOP/s, {EPOCHS} epochs")
    print(plan(args.gpu, args.mfu, args.gpus))


if __name__ == "__main__":
    main()
