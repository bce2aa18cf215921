"""Train a head alone, on features that are computed once: a linear probe.

VIDEOS is a folder with lists (train.csv, val.csv, …) or splits (train/CLASS/…), or a run's folder.
Of each video the clip in the middle is seen, without augmentation: a run with TRAIN.FREEZE
"*, !head" trains a head with it. DIR/model is a whole model, which predict, test and all others
take; DIR/cache has the features, so that another --strength computes none again.

Example:
  timesformer probe data/synthetic --checkpoint timm/vit_base_patch16_224.augreg_in21k --out probe
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.embed.options import add_reading
from timesformer.models.weights.save import save_pretrained
from timesformer.utils.checkpoint import get_checkpoint_dir
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_folder, make_folder
from timesformer.utils.parser import CommandParser, input_path, output_path
from timesformer.utils.run_lock import run_lock
from timesformer.utils.text import counted

if TYPE_CHECKING:
    from timesformer.embed.features import Features
    from timesformer.embed.sources import Videos
    from timesformer.models.base import VideoModel


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "VIDEOS --checkpoint WEIGHTS --out DIR [options]"
    parser = CommandParser("probe", __doc__, usage)
    parser.add_argument("videos", type=input_path, metavar="FOLDER|RUN")
    parser.add_argument("--checkpoint", required=True, metavar="WEIGHTS",
                        help="of a video or an image model: a file, a run's folder, timm/NAME, "
                        "hf/ORG/NAME")  # fmt: skip
    parser.add_argument("--out", required=True, type=output_path, metavar="DIR")
    parser.add_argument("--strength", type=float, default=1.0, metavar="C",
                        help="fit to the training videos: less is smoother (1)")  # fmt: skip
    parser.add_argument("--held-out", choices=("val", "test", "none"), default="val",
                        help="the split that it is tried on, after training (val)")  # fmt: skip
    add_reading(parser)
    args = parser.parse(argv)
    parser.need_positive(args, "--batch-size", "--sampling-rate")
    parser.need_above_zero(args, "--strength")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Compute features, fit the head, and save the model."""
    args = parse_args(argv)
    from timesformer.embed.probe import accuracy, fit_head, give_head  # an extra
    from timesformer.inference.load import load_models

    with run_lock(make_folder(args.out), "--out"):
        train, held_out = splits(args)
        (model,) = load_models([args.checkpoint], args.sampling_rate)
        features = compute(model, train, args)
        labels, names = train.labels[features.index], tuple(train.names)
        weight, bias = fit_head(features.features, labels, len(names), args.strength)
        said = {train.source: (features, labels)}
        for videos in held_out:
            seen = compute(model, videos, args)
            said[videos.source] = seen, videos.labels[seen.index]
        for source, (found, own) in said.items():
            right = 100 * accuracy(found.features, own, weight, bias)
            print(f"{source}: {right:.1f} % of {counted(len(own), 'video')}")
        give_head(model, weight, bias, names)
        save_pretrained(model, args.out / "model")
        print(f"wrote {args.out / 'model'}, a head on {args.checkpoint} (no augmentation)")


def splits(args: argparse.Namespace) -> tuple[Videos, list[Videos]]:
    """Return the videos to train on, and those to try the head on, if any.

    Raises:
        UserError: there are none, or they have no labels, or others.
    """
    from timesformer.embed.sources import of_folder, of_run
    from timesformer.engine.runs import read_config

    path: Path = args.videos
    names = ["train", *({args.held_out} - {"none"})]
    if is_folder(get_checkpoint_dir(path)):
        if args.class_names or args.prefix:
            raise UserError(f"{path}: a run says itself what --class-names and --prefix are for")
        if (cfg := read_config(path)) is None:
            raise UserError(f"{path}: this run has no checkpoint that can be read")
        found = [of_run(cfg, path, split) for split in names]
    else:
        if not is_folder(path):
            raise UserError(f"{path}: there is no such folder; it has train.csv or train/CLASS/…")
        found = [of_folder(path, split, args.class_names, args.prefix) for split in names]
    for videos in found:
        if not videos.labelled:
            raise UserError(f"{videos.source}: its videos have no labels")
    train, *held_out = found
    for videos in held_out:
        if videos.class_names != train.class_names:
            raise UserError(
                f"{videos.source} has other classes than {train.source}: say --class-names"
            )
    return train, held_out


def compute(model: VideoModel, videos: Videos, args: argparse.Namespace) -> Features:
    """Return the features of videos, of the cache what is there.

    Raises:
        UserError: too many couldn't be read.
    """
    from timesformer.embed.cache import cache_file, cached_features

    found, known = cached_features(
        model,
        videos.records,
        cache_file(make_folder(args.out / "cache"), args.checkpoint),
        reader=videos.reader,
        batch_size=args.batch_size,
        workers=args.workers,
    )
    total = counted(len(found.index), "video")
    print(f"{videos.source}: {total}, {known:,} of them from the cache")
    for problem in found.failed:
        print(f"{problem.path}: left out: {problem.reason}")
    if not len(found.index):
        raise UserError(f"{videos.source}: no video could be read")
    return found
