r"""Draw test clips with what the model made of them.

The results come from a test with TEST.SAVE_RESULTS_PATH scores.npz, which holds the config that was
tested and the paths of the videos; give --cfg and KEY VALUE where an older version wrote it, or to
change the config. `--gif FILE` also writes an animation.

Example:
  timesformer plot-predictions --results runs/synthetic/divided/scores.npz --output predictions.png
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from timesformer.config.node import CfgNode
from timesformer.datasets.build import build_given_videos, build_video_split
from timesformer.datasets.lists.records import Record
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.models.build import label
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_folder, make_place
from timesformer.utils.parser import CommandParser, input_path, load_recipe, output_path, png_path

if TYPE_CHECKING:
    from timesformer.visualization.predictions import Predictions


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "--results NPZ --output PNG [options] [KEY VALUE ...]"
    parser = CommandParser("plot-predictions", __doc__, usage)
    parser.add_cfg("the recipe that was tested, if not the one in NPZ", required=False)
    parser.add_argument("--results", required=True, type=input_path, metavar="NPZ")
    parser.add_argument("--output", required=True, type=png_path, metavar="PNG")
    parser.add_argument("--gif", type=output_path, metavar="GIF", help="also write an animation")
    parser.add_argument("--clips", type=int, default=12, metavar="N", help="in the picture (12)")
    parser.add_pairs()
    args = parser.parse(argv)
    parser.need_positive(args, "--clips")
    return args


def config_of(predictions: Predictions, args: argparse.Namespace) -> CfgNode:
    """Return the config that was tested, with what the command line changes.

    Raises:
        UserError: the results don't say it, nor does the command line.
    """
    if args.cfg_file is None and not predictions.config:
        raise UserError(
            f"{args.results}: doesn't say what config was tested; give it as --cfg FILE"
        )
    # The weights, which may be gone, are no longer needed.
    opts = ["TRAIN.CHECKPOINT_FILE_PATH", "", "TEST.CHECKPOINT_FILE_PATH", ""]
    merged = argparse.Namespace(cfg_file=args.cfg_file, opts=[*args.opts, *opts])
    return load_recipe(merged, (predictions.config, f"{args.results}, config"))


def videos_of(predictions: Predictions, cfg: CfgNode) -> VideoDataset:
    """Return the videos that were tested, by their paths; lists are read only if these won't do.

    They don't for folders of frames, of which a list may mean some images only.

    Raises:
        UserError: the lists are needed, and can't be read or name other videos.
    """
    paths, labels = predictions.paths.tolist(), predictions.labels.tolist()
    if not is_folder(paths[0]):
        try:
            return build_given_videos(cfg, list(map(Record, paths, labels)))
        except UserError:
            pass
    dataset = build_video_split(cfg, "test")
    if [str(record.path) for record in dataset.records] != paths:
        raise UserError("the results aren't of the videos that the lists of the config name now")
    return dataset


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture, and the animation if one is wanted."""
    args = parse_args(argv)
    # These need matplotlib.
    from timesformer.visualization.predictions import (
        Predictions,
        draw_grid,
        to_frames,
        write_animation,
    )
    from timesformer.visualization.style import write_png

    predictions = Predictions.load(args.results)
    cfg = config_of(predictions, args)
    dataset = videos_of(predictions, cfg)
    chosen = predictions.choose(args.clips, mistakes=max(1, args.clips // 6))
    if not chosen:
        raise UserError(f"{args.results}: the test could read none of the videos")
    for place in filter(None, (args.output, args.gif)):
        make_place(place)

    def frames(index: int) -> tuple[int, np.ndarray]:  # the centre crop of the first clip
        if not os.path.exists(path := str(predictions.paths[index])):  # noqa: PTH110
            raise UserError(
                f"{path}: not there; {args.results} names videos as the test found them, so run "
                "this where the test ran"
            )
        inputs = dataset[index][0][cfg.TEST.NUM_SPATIAL_CROPS // 2].numpy()
        return index, to_frames(inputs)

    names = dataset.class_names or predictions.class_names
    title = f"{label(cfg)} on {cfg.TEST.DATASET}"
    figure = draw_grid(predictions, [frames(i) for i in chosen], names, title)
    write_png(args.output, figure)
    print(f"wrote {args.output}")
    if args.gif:
        clips = [frames(i) for i in predictions.choose(6)]
        write_animation(args.gif, predictions, clips, names)
        print(f"wrote {args.gif}")
