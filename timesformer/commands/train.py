r"""Train a video model as a recipe says, without testing it.

A run that was interrupted goes on from its newest checkpoint: give the same command again.

Example:
  timesformer train --cfg Kinetics/TimeSformer_divST_8x32_224 \
      NUM_GPUS 1 TRAIN.BATCH_SIZE 8 DATA.PATH_TO_DATA_DIR data OUTPUT_DIR runs/first
"""

from __future__ import annotations

from collections.abc import Sequence

from timesformer.engine.train import train
from timesformer.utils.parser import load_config, parse_args
from timesformer.utils.starting import launch


def main(argv: Sequence[str] | None = None) -> None:
    """Train, in as many processes as the config and the environment ask for."""
    args = parse_args(argv, "train", __doc__)
    launch(load_config(args, only="train"), args.init_method, train)
