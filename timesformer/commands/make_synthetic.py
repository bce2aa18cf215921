"""Make the Synthetic dataset: videos whose classes differ only in order in time.

Done already? Then it takes no time; interrupted? Then it goes on. See docs/synthetic.md.

Example:
  timesformer make-synthetic --output data/synthetic
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from tqdm import tqdm

from timesformer.prepare.synthetic_writer import SPLITS, SyntheticSpec, write_dataset
from timesformer.utils.files import make_places
from timesformer.utils.parser import CommandParser, output_path
from timesformer.utils.run_lock import NAME, run_lock


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    default = SyntheticSpec()
    parser = CommandParser("make-synthetic", __doc__)
    parser.add_argument("--output", type=output_path, required=True, metavar="DIR")
    for split in SPLITS:
        videos = getattr(default, split)
        parser.add_argument(
            f"--{split}", type=int, default=videos, metavar="N", help=f"{split} videos ({videos})"
        )
    parser.add_argument(
        "--pairs", type=int, default=default.pairs, help="3, or 4 with clockwise/counter-clockwise"
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--processes", type=int, metavar="N", help="default: one for each core")
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the videos that are missing, and print how many."""
    args = parse_args(argv)
    spec = SyntheticSpec(args.seed, args.train, args.val, args.test, args.pairs)
    start = time.perf_counter()
    videos = sum(getattr(spec, split) for split in SPLITS)
    with tqdm(total=videos, unit="video", desc="synthetic", disable=None) as bar:
        names = (NAME, "classes.txt", *(f"{split}.csv" for split in SPLITS))
        folder = make_places(args.output, names)
        with run_lock(folder, "--output"):
            written = write_dataset(folder, spec, args.processes, bar.update)
    if written:
        seconds = time.perf_counter() - start
        print(f"{args.output}: wrote {written} of {videos} videos in {seconds:.0f} s")
    else:
        print(f"{args.output}: all {videos} videos are there")
