r"""Show what features a model makes of videos: a picture, neighbours, numbers.

VIDEOS is a list (`path label` a line), a folder (of lists, of classes, or of videos), or a run's
folder, for what it was tested on. Of each video the clip in the middle is looked at. DIR gets
tsne.png (or pca.png), a panel for each checkpoint; index.html, where hovering over a point shows
the video; neighbours.png; scores.csv; features.npz; and cache/, so that another look computes
nothing again. docs/embed.md explains the numbers.

Example:
  timesformer embed runs/synthetic/divided --checkpoint timm/vit_base_patch16_224.augreg_in21k \
    --checkpoint runs/synthetic/space_only --checkpoint runs/synthetic/divided --out features
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timesformer.datasets.parts import SPLITS
from timesformer.datasets.video_dataset import Problem
from timesformer.embed import LEAST_VIDEOS, METHODS
from timesformer.embed.cache import cache_file, cached_features
from timesformer.embed.features import BlindModelError, Features
from timesformer.embed.names import check_names, names_of
from timesformer.embed.options import add_reading
from timesformer.embed.sources import Videos, chosen, of_folder, of_list, of_run
from timesformer.engine.runs import read_config
from timesformer.inference.load import load_models
from timesformer.utils.checkpoint import get_checkpoint_dir
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_folder, make_folder, make_places
from timesformer.utils.parser import CommandParser, input_path, output_path
from timesformer.utils.run_lock import run_lock
from timesformer.utils.text import counted


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "VIDEOS --checkpoint WEIGHTS [--checkpoint WEIGHTS ...] --out DIR [options]"
    parser = CommandParser("embed", __doc__, usage)
    parser.add_argument("videos", type=input_path, metavar="LIST|FOLDER|RUN")
    parser.add_argument("--checkpoint", required=True, action="append", metavar="WEIGHTS",
                        help="of a video or an image model: a file, a run's folder, timm/NAME, "
                        "hf/ORG/NAME; once for each panel")  # fmt: skip
    parser.add_argument("--name", action="append", default=[], metavar="TEXT",
                        help="what the panel is called, once for each --checkpoint")  # fmt: skip
    parser.add_argument("--out", required=True, type=output_path, metavar="DIR")
    parser.add_argument("--method", choices=METHODS, default="tsne", help="of the picture (tsne)")
    parser.add_argument("--split", choices=SPLITS, help="of a folder or run (test, or else val)")
    parser.add_argument("--limit", type=int, metavar="N", help="videos, of each class its share")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of t-SNE and the probe's folds (0)"
    )
    add_reading(parser)
    args = parser.parse(argv)
    parser.need_positive(args, "--limit", "--batch-size", "--sampling-rate")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: must be from 0 to {2**32 - 1}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Embed videos with each checkpoint, and draw; status 1 if a video or model is missing."""
    args = parse_args(argv)
    # Pictures and scores are extras: what is missing is told before the work, --help needs neither.
    import timesformer.embed.report  # noqa: F401

    names = args.name or names_of(args.checkpoint)
    check_names(names, args.checkpoint)
    picture = f"{args.method}.png"
    left = (picture, "neighbours.png", "index.html", "features.npz", "scores.csv")
    with run_lock(make_places(args.out, left), "--out"):
        embed_and_draw(args, names, left)


def embed_and_draw(args: argparse.Namespace, names: Sequence[str], left: Sequence[str]) -> None:
    """Embed and draw, into a folder that is this process's; these files are left there."""
    from timesformer.embed.report import in_view, write_report

    folder, videos = args.out, find(args)
    models = dict(zip(names, load_models(args.checkpoint, args.sampling_rate), strict=True))
    found: dict[str, Features] = {}
    blind: dict[str, str] = {}
    for (name, model), source in zip(models.items(), args.checkpoint, strict=True):
        try:
            found[name] = embed(model, videos, make_folder(folder / "cache"), source, name, args)
        except BlindModelError as error:
            blind[name] = str(error)
    failed = tell(found, videos)
    found, kept, more = in_view(found, len(videos.records))
    blind |= more
    if not found:
        raise UserError("; ".join(f"{name}: {why}" for name, why in blind.items()))
    for name, why in blind.items():
        print(f"error: {name} is left out: {why}", file=sys.stderr)
    write_report(folder, found, videos, kept, args.method, args.seed, blind)
    print(f"wrote {', '.join(str(folder / name) for name in left)}")
    if failed:
        print(f"{counted(len(failed), 'video')} couldn't be read", file=sys.stderr)
    if failed or blind:
        sys.exit(1)


def find(args: argparse.Namespace) -> Videos:
    """Return the videos that the command line means, and say how many they are."""
    path: Path = args.videos
    if not os.path.lexists(path):
        raise UserError(f"{path}: there is no such list, folder or run")
    if is_folder(get_checkpoint_dir(path)):
        cfg = read_config(path)
        if cfg is None:
            raise UserError(f"{path}: this run has no checkpoint that can be read")
        if args.class_names or args.prefix:
            raise UserError(f"{path}: a run says itself what --class-names and --prefix are for")
        videos = of_run(cfg, path, args.split)
    elif is_folder(path):
        videos = of_folder(path, args.split, args.class_names, args.prefix)
    elif args.split:
        raise UserError(f"--split {args.split}: {path} is no folder, so it has no splits")
    else:
        videos = of_list(path, args.class_names, args.prefix)
    total = len(videos.records)
    if args.limit is not None and args.limit < total:
        records = videos.records
        videos = replace(videos, records=records.take(chosen(records, args.limit)))
    if len(videos.records) < LEAST_VIDEOS:
        few = f"a picture needs at least {LEAST_VIDEOS}"
        raise UserError(f"{path}: {counted(len(videos.records), 'video')}, and {few}")
    some = f" (of {total:,}, of each class its share)" if len(videos.records) < total else ""
    print(f"{videos.source}: {videos.described(videos.labels)}{some}")
    return videos


def embed(
    model: Any, videos: Videos, folder: Path, source: str, name: str, args: argparse.Namespace
) -> Features:
    """Return the features of one model, of the cache what is there."""
    try:
        found, known = cached_features(
            model,
            videos.records,
            cache_file(folder, source),
            reader=videos.reader,
            batch_size=args.batch_size,
            workers=args.workers,
        )
    except BlindModelError:
        raise
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    print(f"{name}: {counted(len(found.index), 'video')}, {known:,} of them from the cache")
    return found


def tell(found: Mapping[str, Features], videos: Videos) -> set[int]:
    """Say what is wrong with videos, of each once; return the numbers of those not read."""
    damaged: dict[int, str] = {}
    failed: dict[int, Problem] = {}
    for features in found.values():
        pairs = zip(features.index.tolist(), features.damage, strict=True)
        damaged |= {i: reason for i, reason in pairs if reason}
        failed |= {problem.record: problem for problem in features.failed}
    for i, reason in sorted(damaged.items()):
        print(f"{videos.records[i].path}: damaged, used as decoded: {reason}")
    for _, problem in sorted(failed.items()):
        where = f" ({problem.where})" if problem.where else ""
        print(f"error: {problem.path}{where}: {problem.reason}", file=sys.stderr)
    return {*failed}
