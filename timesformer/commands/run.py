"""Train a video model, test it, or both, as a recipe says."""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from timesformer.engine.evaluate import test
from timesformer.engine.train import train
from timesformer.utils.distributed import launch
from timesformer.utils.parser import load_config, parse_args


def run(cfg: CfgNode) -> None:
    """Train and/or test, in one process of possibly many."""
    if cfg.TRAIN.ENABLE:
        train(cfg)
    if cfg.TEST.ENABLE:
        test(cfg)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and/or test, in as many processes as the config and the environment ask for."""
    args = parse_args(argv, "run")
    launch(load_config(args), args.init_method, run)
