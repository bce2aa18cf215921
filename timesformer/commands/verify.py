r"""Repeat the first steps of a run, and say whether they come out as they did.

RUN's folder is only read; the steps are made in a folder that goes again, on this machine's
device. KEY VALUE pairs say what lies elsewhere here, e.g. the data. Equal, or within the tolerance,
is status 0; different is 1; 2 means that it can't be told. A start that went on from a checkpoint
needs that checkpoint.

Examples:
  timesformer verify runs/first
  timesformer verify runs/first --steps 5 --tolerance 0 DATA.PATH_TO_DATA_DIR /data/k400
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check, check_devices
from timesformer.engine.provenance import entries_of
from timesformer.engine.train import train
from timesformer.engine.verify import Start, differences, other_facts, read_trace, verdict
from timesformer.utils.checkpoint import Place, get_path_to_checkpoint
from timesformer.utils.errors import Stopped, UserError
from timesformer.utils.parser import CommandParser, input_path
from timesformer.utils.starting import launch
from timesformer.utils.text import counted

STEPS = 20
# What doesn't bear on the steps, and would cost time or write elsewhere.
OFF = {
    "TRAIN.ENABLE": True, "TEST.ENABLE": False, "TRAIN.EVAL_PERIOD": 0, "TEST.WEIGHTS": "raw",
    "SOLVER.EARLY_STOP_EPOCHS": 0, "TENSORBOARD.ENABLE": False, "TENSORBOARD.LOG_DIR": "",
    "TRAIN.CHECKPOINT_STEPS": 0, "TRAIN.CHECKPOINT_MINUTES": 0.0, "TRAIN.CHECKPOINT_PERIOD": 10**9,
    "LOG_MODEL_INFO": False, "EMA.ENABLED": False, "NUM_SHARDS": 1, "SHARD_ID": 0,
    "TRAIN.AUTO_RESUME": False,
}  # fmt: skip


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("verify", __doc__, "RUN [KEY VALUE ...] [options]")
    parser.add_argument("run", type=input_path, metavar="RUN", help="a run's folder")
    parser.add_argument("--steps", type=int, metavar="N", help=f"steps to repeat ({STEPS})")
    parser.add_argument(
        "--start", type=int, metavar="N",
        help="which start of the run, from 1 (the last one that went on from nothing of its own)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="X",
        help="greatest relative difference of loss, gradient norm, and norm of a weight "
        "(%(default)g); 0: bit for bit",
    )  # fmt: skip
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="what is elsewhere here than it was"
    )
    args = parser.parse(argv)
    parser.need_positive(args, "--steps", "--start")
    if not args.tolerance >= 0:
        raise UserError(f"--tolerance {args.tolerance}: must be 0 or more")
    return args


def choose(starts: Sequence[Start], args: argparse.Namespace) -> Start:
    """Return the start that is meant.

    Raises:
        UserError: there is no such, or so many of its steps weren't traced.
    """
    fresh = [n for n, start in enumerate(starts, 1) if not start.head["resumed"]]
    number = args.start or (fresh[-1] if fresh else 1)
    if number > len(starts):
        raise UserError(f"--start {number}: {args.run} has {counted(len(starts), 'start')}")
    start = starts[number - 1]
    if not start.steps:
        raise UserError(f"{args.run}: no step of {start} was traced")
    if args.steps and args.steps > len(start.steps):
        traced = counted(len(start.steps), "step")
        raise UserError(f"--steps {args.steps}: of {start} {traced} were traced")
    return start


def config_of(start: Start, args: argparse.Namespace, scratch: str) -> tuple[CfgNode, list[str]]:
    """Make the config that repeats a start here; return what differs from its own, too.

    Raises:
        ConfigError: it can't be repeated here.
        UserError: the checkpoint that it went on from is gone.
    """
    cfg = get_cfg()
    cfg.merge_from_string(start.head["config"], f"{args.run}: the config of {start}")
    before = dict(cfg.leaves())
    cfg.merge_from_list(args.opts or [])  # NUM_GPUS may be among them
    changed = [f"{k}: {before[k]} → {v}" for k, v in cfg.leaves() if before[k] != v]
    for key, value in OFF.items():
        group, _, name = key.rpartition(".")
        (cfg[group] if group else cfg)[name] = value
    spread(cfg, start)
    cfg.merge_from_list(args.opts or [])  # what is asked for holds
    cfg.OUTPUT_DIR = scratch
    if start.head["resumed"]:
        place = Place(*start.head["first"])
        path = get_path_to_checkpoint(args.run, *place)
        if not path.exists():
            raise UserError(
                f"{path}: {start} went on from it, and it is gone (TRAIN.KEEP_CHECKPOINTS); "
                "--start 1 repeats the beginning"
            )
        cfg.TRAIN.CHECKPOINT_FILE_PATH = str(path)
        cfg.TRAIN.FINETUNE = cfg.TRAIN.CHECKPOINT_EPOCH_RESET = False
    check(cfg)
    check_devices(cfg)
    return cfg, changed


def spread(cfg: CfgNode, start: Start) -> None:
    """Spread the clips of a step over what there is here: as they were, or on one process."""
    layout = start.head["layout"]
    if cfg.NUM_GPUS:
        import torch

        found = torch.cuda.device_count()
        cfg.NUM_GPUS = layout["ranks"] if layout["ranks"] <= found else min(found, 1)
    cfg.DIST_BACKEND = "auto"
    cfg.TRAIN.BATCH_SIZE = layout["per_rank"] * max(1, cfg.NUM_GPUS)
    cfg.GLOBAL_BATCH_SIZE = layout["global_batch"]


def main(argv: Sequence[str] | None = None) -> None:
    """Repeat, compare, and say what came out."""
    args = parse(argv)
    start = choose(read_trace(args.run), args)
    steps = args.steps or min(STEPS, len(start.steps))
    with tempfile.TemporaryDirectory(prefix="timesformer-verify-") as scratch:
        cfg, changed = config_of(start, args, scratch)
        try:
            launch(cfg, "", partial(train, steps=steps))
        except Stopped as error:
            raise Stopped("stopped before anything was compared", error.status) from None
        again = read_trace(Path(scratch))[0]
        here = entries_of(Path(scratch))
    same_spread = start.head["layout"] == again.head["layout"]
    found = differences(start, again, steps, same_spread)
    points = [0, *(line["step"] for line in start.steps[:steps] if "weights" in line)]
    compared = (
        f"{counted(steps, 'step')} of {start}, weights after {', '.join(map(str, points))}"
        + ("" if same_spread else "; spread over processes otherwise, so clips aren't compared")
    )
    status, lines = verdict(found, compared, args.tolerance)
    then = [entry for entry in entries_of(args.run) if entry.get("started") == start.head["start"]]
    facts = other_facts(then[0], here[-1]) if then and here else ["environment.json doesn't say"]
    lines += [f"- config {line}" for line in changed] + [f"- {line}" for line in facts]
    print("\n".join(lines))
    if status:
        sys.exit(status)
