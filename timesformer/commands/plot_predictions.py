r"""Draw test clips with what the model made of them.

The results come from a test with TEST.SAVE_RESULTS_PATH scores.npz. `--gif FILE` also writes an
animation.

Example:
  timesformer plot-predictions --cfg Synthetic/TimeSformer_divST_8_64 \
      --results runs/synthetic/divided/scores.npz --output predictions.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from timesformer.datasets.build import build_video_split
from timesformer.models.build import label
from timesformer.utils.errors import UserError
from timesformer.utils.files import make_folder
from timesformer.utils.parser import CommandParser, load_recipe


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "--cfg FILE --results NPZ --output PNG [options] [KEY VALUE ...]"
    parser = CommandParser("plot-predictions", __doc__, usage)
    parser.add_cfg("the recipe that was tested: a YAML file or a name")
    parser.add_argument("--results", required=True, type=Path, metavar="NPZ")
    parser.add_argument("--output", required=True, type=Path, metavar="PNG")
    parser.add_argument("--gif", type=Path, metavar="GIF", help="also write an animation")
    parser.add_argument("--clips", type=int, default=12, metavar="N", help="in the picture (12)")
    parser.add_pairs()
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture, and the animation if one is wanted."""
    args = parse_args(argv)
    cfg = load_recipe(args)
    # These need matplotlib.
    from timesformer.visualization.predictions import (
        Predictions,
        draw_grid,
        to_frames,
        write_animation,
    )
    from timesformer.visualization.style import write_png

    predictions = Predictions.load(args.results)
    dataset = build_video_split(cfg, "test")
    if [str(record.path) for record in dataset.records] != predictions.paths.tolist():
        raise UserError(f"{args.results}: not of the videos that {args.cfg_file} tests")

    def frames(index: int) -> tuple[int, np.ndarray]:  # the centre crop of the first clip
        inputs = dataset[index][0][cfg.TEST.NUM_SPATIAL_CROPS // 2].numpy()
        return index, to_frames(inputs)

    names = dataset.class_names or predictions.class_names
    chosen = predictions.choose(args.clips, mistakes=max(1, args.clips // 6))
    title = f"{label(cfg)} on {cfg.TEST.DATASET}"
    figure = draw_grid(predictions, [frames(i) for i in chosen], names, title)
    make_folder(args.output.parent)
    write_png(args.output, figure)
    print(f"wrote {args.output}")
    if args.gif:
        make_folder(args.gif.parent)
        clips = [frames(i) for i in predictions.choose(6)]
        write_animation(args.gif, predictions, clips, names)
        print(f"wrote {args.gif}")
