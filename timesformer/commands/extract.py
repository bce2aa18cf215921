"""Write the features of many videos: of clips, windows, frames or patches.

They go to OUT in parts, each written once: run the same command again, however it was ended, and
only what is missing is done, to the same bits. Several runs may fill one OUT at once, each a
--shard of the list, or all of it. docs/inference.md says what the files hold, and how code bases
for temporal action detection read them. Videos that can't be read are listed in OUT/failed.csv, the
rest goes on, and the exit status is 1.

Examples:
    timesformer extract videos/ --checkpoint runs/synthetic/divided --out features
    timesformer extract list.txt --checkpoint k400.pyth --stride 0.5s --format npy --out tad
    timesformer extract list.txt --checkpoint k400.pyth --level patch --out maps --shard 2/8
    timesformer extract list.txt --checkpoint k400.pyth --plan
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from timesformer.datasets.video.reader import VideoReader
from timesformer.inference.encoder import LAST, LEVELS
from timesformer.inference.extract import Summary, extract
from timesformer.inference.extract_plan import plan
from timesformer.inference.features import FORMATS
from timesformer.inference.given import find
from timesformer.inference.options import ModelParser, load_asked
from timesformer.inference.settings import Settings, share_of
from timesformer.utils.errors import UserError
from timesformer.utils.files import make_folder
from timesformer.utils.parser import duration, input_path, output_path
from timesformer.utils.text import counted


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "VIDEO|FOLDER|LIST ... --checkpoint WEIGHTS --out DIR [options]"
    parser = ModelParser("extract", __doc__, usage)
    parser.add_argument("videos", nargs="+", type=input_path, metavar="VIDEO|FOLDER|LIST")
    parser.add_checkpoint(exported=False)
    parser.add_argument("--out", type=output_path, metavar="DIR", help="the folder to fill")
    parser.add_argument("--level", choices=LEVELS, default="clip", help="what has a row (clip)")
    parser.add_argument("--layer", type=int, default=LAST, metavar="N",
                        help="after block N, from 0, negative from the end "
                        "(-1: the last one and the norm, what the head sees)")  # fmt: skip
    parser.add_argument("--stride", type=duration, metavar="TIME",
                        help="windows along the whole video, so far apart: 1s, 0.5s")  # fmt: skip
    parser.add_views("that are averaged (the test's; one crop of windows and patches)")
    parser.add_argument("--format", choices=FORMATS, default="npz", dest="file_format",
                        help="npz (default), parquet, or npy: a file a video")  # fmt: skip
    parser.add_argument("--fp16", action="store_true", help="store float16")
    parser.add_argument("--part", type=int, metavar="N",
                        help="videos in a file of OUT/parts (64; 16 of many rows)")  # fmt: skip
    parser.add_argument("--shard", default="1/1", metavar="i/n",
                        help="do the i-th of n shares of the list, from 1/n to n/n")  # fmt: skip
    parser.add_argument("--plan", action="store_true",
                        help="measure a few of the videos, and tell the cost of many")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    parser.add_computing(scores=False)
    parser.add_batch_size()
    parser.add_workers()
    parser.add_frames_fps()
    args = parser.parse(argv)
    parser.need_positive(args, "--part")
    parser.need_above_zero(args, "--stride")
    args.share = share_of(args.shard)
    if args.out is None and not args.plan:
        raise UserError("--out: the folder to fill is needed")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Extract; status 1 if some videos can't be read."""
    args = parse_args(argv)
    videos = find(args.videos, args.out)
    if not args.plan:
        make_folder(args.out)  # that it can't be is told before weights are read
    model, reader = load_asked(args), VideoReader(frames_fps=args.frames_fps)
    settings = Settings(
        **{name: getattr(args, name) for name in Settings.__dataclass_fields__}  # one name each
    )
    if args.plan:
        print(plan(model, videos, settings, args.workers, reader))
        return
    summary = extract(
        model,
        videos,
        args.out,
        settings,
        share=args.share,
        workers=args.workers,
        reader=reader,
        source=args.checkpoint,
    )
    if args.json:
        told = {"out": str(args.out), "level": args.level, "shard": args.shard}
        print(json.dumps(told | asdict(summary) | {"videos_per_s": rate(summary)}))
    else:
        tell(summary, args)
    if summary.failed:
        sys.exit(1)


def rate(summary: Summary) -> float:
    """Return videos per second, of those that were done."""
    return round(summary.done / summary.seconds, 3)


def tell(summary: Summary, args: argparse.Namespace) -> None:
    """Print what was done."""
    print(
        f"{counted(summary.done, 'video')} in {summary.seconds:.1f} s "
        f"({rate(summary):.3g} videos/s), {summary.there:,} were there; {args.out}"
    )
    if summary.elsewhere:
        print(f"{counted(summary.elsewhere, 'video')}: another run is at them")
    if not summary.videos:
        print(f"--shard {args.shard}: no part of the list is left for it")
    if summary.failed:
        print(f"{counted(summary.failed, 'video')} couldn't be read: failed*.csv", file=sys.stderr)
