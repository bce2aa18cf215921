"""From a command line to a checked config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check, check_devices

_DESCRIPTION = "Train a video model, test it, or both, as a YAML file describes."
_EPILOG = """\
examples:
  on the CPU, from your own lists of videos, data/{train,val,test}.csv:
    %(prog)s --cfg configs/Kinetics/TimeSformer_divST_8x32_224.yaml \\
        NUM_GPUS 0 TRAIN.BATCH_SIZE 2 DATA.PATH_TO_DATA_DIR data OUTPUT_DIR runs/first
  test a checkpoint on data/test.csv:
    %(prog)s --cfg configs/Kinetics/TimeSformer_divST_8x32_224_TEST.yaml \\
        NUM_GPUS 1 DATA.PATH_TO_DATA_DIR data TEST.CHECKPOINT_FILE_PATH model.pyth
  two nodes of 8 GPUs (on the second: --shard_id 1):
    %(prog)s --cfg FILE --num_shards 2 --shard_id 0 \\
        --init_method tcp://FIRST_NODE:9999 NUM_GPUS 8

Every key, its default and its meaning: timesformer/config/defaults.py.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments that all tools share.

    Args:
        argv: the words after the program's name; None takes them from `sys.argv`.

    Returns:
        `cfg_file`, `num_shards` and `shard_id` (None when not given), `init_method`, `opts`.
    """
    parser = argparse.ArgumentParser(
        usage="%(prog)s --cfg FILE [options] [KEY VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cfg",
        dest="cfg_file",
        metavar="FILE",
        required=True,
        help="YAML file that says what to run; recipes are under configs/",
    )
    parser.add_argument(
        "--num_shards",
        type=int,
        metavar="N",
        help="number of nodes, when you start each by hand (default: NUM_SHARDS in the config); "
        "not needed under torchrun",
    )
    parser.add_argument(
        "--shard_id",
        type=int,
        metavar="I",
        help="which of them this one is, 0 to N-1 (default: SHARD_ID in the config)",
    )
    parser.add_argument(
        "--init_method",
        default="tcp://localhost:9999",
        metavar="URL",
        help="where the processes meet: tcp://HOST:PORT of node 0 (default: %(default)s)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="after all options: pairs that override the file, e.g. NUM_GPUS 0 "
        "SOLVER.BASE_LR 1e-3 DATA.MEAN '[.5, .5, .5]'",
    )
    return parser.parse_args(argv)


def load_config(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, file, KEY VALUE pairs and shard options, in this order, and check them.

    Args:
        args: what `parse_args` returned.

    Returns:
        The config, not frozen.

    Raises:
        ConfigError: in one line, what to change.
    """
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg_file)
    cfg.merge_from_list(args.opts or [])
    if args.num_shards is not None:
        cfg.NUM_SHARDS = args.num_shards
    if args.shard_id is not None:
        cfg.SHARD_ID = args.shard_id
    check(cfg)
    check_devices(cfg)
    return cfg
