"""Trains and tests a TimeSformer as a YAML file says.

python tools/run_net.py --cfg configs/Kinetics/TimeSformer_divST_8x32_224.yaml KEY VALUE …

One process, NUM_GPUS processes, several nodes (--num_shards, --shard_id, --init_method) or
torchrun: the README shows each.
"""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from timesformer.engine.evaluate import test
from timesformer.engine.train import train
from timesformer.utils.distributed import launch
from timesformer.utils.errors import run_tool
from timesformer.utils.parser import load_config, parse_args


def run(cfg: CfgNode) -> None:
    """Trains and/or tests, in one process of possibly many."""
    if cfg.TRAIN.ENABLE:
        train(cfg)
    if cfg.TEST.ENABLE:
        test(cfg)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(argv)
    launch(load_config(args), args.init_method, run)


if __name__ == "__main__":
    run_tool(main)
