r"""Train a video model, test it, or both, as a recipe says.

One process, NUM_GPUS processes, several nodes (--num_shards, --shard_id, --init_method) or
torchrun: the README shows each.

Examples:
  on the CPU, from your own lists of videos, data/{train,val,test}.csv:
    timesformer run --cfg Kinetics/TimeSformer_divST_8x32_224 \
        NUM_GPUS 0 TRAIN.BATCH_SIZE 2 DATA.PATH_TO_DATA_DIR data OUTPUT_DIR runs/first
  test a checkpoint on data/test.csv:
    timesformer run --cfg Kinetics/TimeSformer_divST_8x32_224_TEST \
        NUM_GPUS 1 DATA.PATH_TO_DATA_DIR data TEST.CHECKPOINT_FILE_PATH model.pyth
  two nodes of 8 GPUs (on the second: --shard_id 1):
    timesformer run --cfg FILE --num_shards 2 --shard_id 0 \
        --init_method tcp://FIRST_NODE:9999 NUM_GPUS 8
"""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from timesformer.engine.evaluate import test
from timesformer.engine.scope import run_scope
from timesformer.engine.train import train
from timesformer.utils.parser import load_config, parse_args
from timesformer.utils.starting import launch


def run(cfg: CfgNode) -> None:
    """Train and/or test, in one process of possibly many."""
    with run_scope(cfg):  # of both: nobody gets in between
        if cfg.TRAIN.ENABLE:
            train(cfg)
        if cfg.TEST.ENABLE:
            test(cfg)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and/or test, in as many processes as the config and the environment ask for."""
    args = parse_args(argv, "run", __doc__)
    launch(load_config(args), args.init_method, run)
