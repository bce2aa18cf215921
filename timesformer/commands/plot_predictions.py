"""Draws test clips with what the model made of them.

python tools/plot_predictions.py --cfg FILE --results OUTPUT_DIR/scores.npz --output predictions.png

The results come from a test with TEST.SAVE_RESULTS_PATH scores.npz. `--gif FILE` also writes an
animation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from timesformer.config.defaults import get_cfg
from timesformer.config.validate import check
from timesformer.datasets.build import build_dataset
from timesformer.utils.errors import UserError, run_tool
from timesformer.visualization.predictions import (
    Predictions,
    draw_grid,
    to_frames,
    write_animation,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the recipe that was tested")
    parser.add_argument("--results", required=True, type=Path, metavar="NPZ")
    parser.add_argument("--output", required=True, type=Path, metavar="PNG")
    parser.add_argument("--gif", type=Path, metavar="GIF", help="also write an animation")
    parser.add_argument("--clips", type=int, default=12, metavar="N", help="in the picture (12)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(argv)
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    check(cfg)
    predictions = Predictions.load(args.results)
    dataset = build_dataset(cfg.TEST.DATASET, cfg, "test")
    if [str(record.path) for record in dataset.records] != predictions.paths.tolist():
        raise UserError(f"{args.results}: not of the videos that {args.cfg} tests")

    def frames(index: int):  # the centre crop of the first clip
        inputs = dataset[index][0][cfg.TEST.NUM_SPATIAL_CROPS // 2].numpy()
        return index, to_frames(inputs)

    names = dataset.class_names or predictions.class_names
    chosen = predictions.choose(args.clips, mistakes=max(1, args.clips // 6))
    title = f"{cfg.TIMESFORMER.ATTENTION_TYPE} on {cfg.TEST.DATASET}"
    figure = draw_grid(predictions, [frames(i) for i in chosen], names, title)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output)
    print(f"wrote {args.output}")
    if args.gif:
        args.gif.parent.mkdir(parents=True, exist_ok=True)
        clips = [frames(i) for i in predictions.choose(6)]
        write_animation(args.gif, predictions, clips, names)
        print(f"wrote {args.gif}")


if __name__ == "__main__":
    run_tool(main)
