"""Make a Synthetic dataset: small videos of which it is known what they take.

Kinds: motion, whose classes differ only in order in time; and the twins, the same videos with two
kinds of labels: static (what the object looks like) and temporal (in which order things happen).
Done already? Then it takes no time; interrupted? Then it goes on. See docs/synthetic.md.

Examples:
  timesformer make-synthetic --output data/synthetic
  timesformer make-synthetic --kind temporal --output data/synthetic_temporal
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from tqdm import tqdm

from timesformer.prepare.synthetic_writer import KINDS, SIZES, SPLITS, SyntheticSpec, write_dataset
from timesformer.utils.files import LOCK_NAME, make_places
from timesformer.utils.parser import CommandParser, output_path
from timesformer.utils.run_lock import run_lock


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: --processes below 1.
    """
    default = SyntheticSpec()
    parser = CommandParser("make-synthetic", __doc__)
    parser.add_argument("--output", type=output_path, required=True, metavar="DIR")
    parser.add_argument("--kind", choices=KINDS, default=default.kind)
    for i, split in enumerate(SPLITS):
        sizes = ", ".join(f"{kind} {size[i]}" for kind, size in SIZES.items())
        parser.add_argument(
            f"--{split}", type=int, metavar="N", help=f"{split} videos (default: {sizes})"
        )
    parser.add_argument(
        "--pairs",
        type=int,
        default=default.pairs,
        help="of motions: 3, or 4 with clockwise/counter-clockwise",
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--processes", type=int, metavar="N", help="default: one for each core")
    args = parser.parse(argv)
    parser.need_positive(args, "--processes")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Write the videos that are missing, and print how many."""
    args = parse_args(argv)
    sizes = {split: videos for split in SPLITS if (videos := getattr(args, split)) is not None}
    spec = SyntheticSpec.of_kind(args.kind, args.seed, args.pairs, **sizes)
    start = time.perf_counter()
    videos = sum(getattr(spec, split) for split in SPLITS)
    with tqdm(total=videos, unit="video", desc="synthetic", disable=None) as bar:
        names = (LOCK_NAME, "classes.txt", *(f"{split}.csv" for split in SPLITS))
        folder = make_places(args.output, names)
        with run_lock(folder, "--output"):
            written = write_dataset(folder, spec, args.processes, bar.update)
    if written:
        seconds = time.perf_counter() - start
        print(f"{args.output}: wrote {written} of {videos} videos in {seconds:.0f} s")
    else:
        print(f"{args.output}: all {videos} videos are there")
