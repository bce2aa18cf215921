"""Make copies of videos that load many times faster: small, with many keyframes.

With --cfg it takes the videos of a recipe and writes lists of them to DIR as well; with --input it
takes all videos of a folder. Both keep the tree of folders; every file becomes an .mp4. A copy has
the same frames at the same times, upright and without sound. Sources are never changed.

With --shards the videos are put into plain tars with an index (docs/datasets.md), of which training
reads each video by itself: for file systems that many small files are slow on, and for object
stores. --as-is puts files there as they are, without a copy.

Interrupted? Run it again to go on. Videos that can't be read are listed in DIR/failed.csv.
Exit status: 0 all is done, 1 some videos failed, 2 it couldn't start or go on.

Examples:
  timesformer prepare-data --cfg Kinetics/TimeSformer_divST_8x32_224 --output prepared
  timesformer prepare-data --input videos --output prepared
  timesformer prepare-data --cfg recipe.yaml --output shards --shards 1GB --as-is
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.datasets.build import SPLITS
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.copies import (
    NAMES,
    Job,
    Outcome,
    find_base,
    find_videos,
    how_to_train,
    make_copies,
    plan,
    summarise,
    write_failed,
    write_lists,
)
from timesformer.prepare.inspect import read_splits
from timesformer.prepare.packing import Limit
from timesformer.prepare.shards import make_shards, plan_as_they_are
from timesformer.prepare.transcode import TranscodeSettings
from timesformer.utils.errors import AnnotationError, UserError
from timesformer.utils.files import LOCK_NAME, make_places
from timesformer.utils.parser import CommandParser, input_path, load_recipe, output_path
from timesformer.utils.run_lock import run_lock

FAILED = "failed.csv"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    default = TranscodeSettings()
    usage = "(--cfg FILE | --input FOLDER) --output DIR [options] [KEY VALUE ...]"
    parser = CommandParser("prepare-data", __doc__, usage)
    sources = parser.add_mutually_exclusive_group(required=True)
    parser.add_cfg("recipe whose videos to take: a YAML file or a name", among=sources)
    sources.add_argument(
        "--input", type=input_path, metavar="FOLDER", help="folder of videos to take"
    )
    parser.add_argument("--output", type=output_path, required=True, metavar="DIR")
    parser.add_splits(SPLITS)
    parser.add_argument(
        "--short-side", type=int, default=default.short_side, metavar="N",
        help="in pixels (%(default)s); smaller videos keep their size",
    )  # fmt: skip
    parser.add_argument(
        "--gop", type=int, default=default.gop, metavar="N",
        help="frames from one keyframe to the next (%(default)s): fewer load faster, more are "
        "smaller",
    )  # fmt: skip
    parser.add_argument(
        "--crf", type=int, default=default.crf, metavar="N",
        help="quality of x264 (%(default)s): less is better and larger",
    )  # fmt: skip
    parser.add_argument(
        "--shards", metavar="N|SIZE",
        help="write tars instead of files: so many, or of so many bytes each (1000, 500MB, 1GiB)",
    )  # fmt: skip
    parser.add_argument(
        "--as-is", action="store_true",
        help="with --shards: put the files there byte for byte, folders of frames image by image",
    )  # fmt: skip
    parser.add_workers()
    parser.add_pairs()
    args = parser.parse(argv)
    if args.as_is:
        if not args.shards:
            raise UserError("--as-is goes with --shards: files as they are needn't be copied")
        if (args.short_side, args.gop, args.crf) != (default.short_side, default.gop, default.crf):
            raise UserError("--as-is makes no copies, so --short-side, --gop and --crf say nothing")
    if args.shards:
        Limit.of(args.shards, 1)  # an error now rather than after the lists are read
    if args.input and (args.splits or args.opts):
        raise UserError("--splits and KEY VALUE go with --cfg, not with --input")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Make the copies and, for a recipe, lists of them; print what was done."""
    args = parse_args(argv)
    datasets: Mapping[str, VideoDataset] = {}
    if args.cfg_file:
        cfg = load_recipe(args)
        datasets = find_splits(cfg, args.splits)
        base, sources = find_base(cfg, datasets)
    else:
        cfg = get_cfg()
        base, sources = args.input, find_videos(args.input, args.output)
    settings = TranscodeSettings(args.short_side, args.gop, args.crf, cfg.DATA.FRAMES_FPS)
    names = (LOCK_NAME, FAILED, NAMES, *(f"{split}.csv" for split in SPLITS))
    how = plan_as_they_are if args.as_is else plan
    jobs = how(sources, base, make_places(args.output, names))
    with run_lock(args.output, "--output"):
        try:
            if args.shards:
                made_by = None if args.as_is else settings
                outcomes = make_shards(jobs, args.output, args.shards, made_by, args.workers)
            else:
                outcomes = make_copies(jobs, args.output, settings, args.workers)
        except KeyboardInterrupt:
            print("stopped; run it again to go on", file=sys.stderr)
            sys.exit(130)
        write_lists(args.output, datasets, outcomes, cfg, args.as_is)
        all_done = report(outcomes, args.output)
    for hint in dict.fromkeys(
        how_to_train(dataset, args.output, args.as_is) for dataset in datasets.values()
    ):
        print(hint)
    if not all_done:
        sys.exit(1)


def find_splits(cfg: CfgNode, splits: Sequence[str]) -> dict[str, VideoDataset]:
    """Build the splits that were asked for, or all that have a list."""
    datasets, unreadable = read_splits(cfg, splits)
    for split, reason in unreadable.items():
        if splits:
            raise AnnotationError(reason)
        print(f"without {split}: {reason}")
    for dataset in datasets.values():
        if dataset.reader.shards is not None:
            root = dataset.reader.shards.root
            raise UserError(f"{root}: the videos are in shards; they are prepared from files alone")
    return datasets


def report(outcomes: Mapping[Job, Outcome], output: Path) -> bool:
    """Print what was done, and write down what failed; return whether nothing did."""
    made = summarise(outcomes)
    after_bytes = made.after + sum(path.stat().st_size for path in output.glob("shard-*.tar"))
    before, after = made.before / 1e6, after_bytes / 1e6
    print(
        f"{output}: {made.done:,} videos prepared, {made.skipped:,} were there, "
        f"{len(made.failed):,} failed; {before:,.1f} MB became {after:,.1f} MB"
    )
    path = output / FAILED
    write_failed(path, made.failed)
    if made.failed:
        print(f"{path} says which and why; lists that are written are without them")
    return not made.failed
