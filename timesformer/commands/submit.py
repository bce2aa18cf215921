r"""Hand a run to SLURM: it goes on after each end of a job until it is done.

The job runs `timesformer run` with the same words. When its time is over or its machine is wanted
for another job, the run saves, the job is queued again, and the run goes on bit for bit. It is
given up, with the reason, after --tries attempts that led nowhere. docs/cluster.md says more.

Examples:
  two nodes of 8 GPUs, for at most a day at a time:
    timesformer submit --nodes 2 --gpus 8 --hours 24 --sbatch partition=gpu \
        --cfg Kinetics/TimeSformer_divST_8x32_224 OUTPUT_DIR runs/k400
  three seeds as an array, in runs/k400/seed_0 and so on; what sbatch would be given:
    timesformer submit --gpus 8 --hours 24 --seeds 0,1,2 --dry-run \
        --cfg Kinetics/TimeSformer_divST_8x32_224 OUTPUT_DIR runs/k400
  on this machine, without SLURM:
    timesformer submit --local --gpus 0 --hours 1 --cfg Synthetic/TimeSformer_divST_8_64
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from timesformer.cluster import submit as cluster
from timesformer.config.allowed import is_auto
from timesformer.config.node import CfgNode
from timesformer.config.validate import check_devices
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_folder
from timesformer.utils.parser import CommandParser, load_recipe
from timesformer.utils.remote import is_url
from timesformer.utils.text import counted

OURS = {
    "NUM_GPUS": "--gpus says it",
    "NUM_SHARDS": "--nodes says it",
    "SHARD_ID": "each task knows its own",
}


def seeds_of(word: str) -> list[int]:
    """Return the numbers of `0,1,2`."""
    numbers = [part.strip() for part in word.split(",")]
    if not all(map(str.isdecimal, numbers)) or len({*map(int, numbers)}) < len(numbers):
        raise argparse.ArgumentTypeError(f"{word!r:.60}: different numbers, as 0,1,2")
    return [int(number) for number in numbers]


OF_SBATCH = {
    "time": "--hours", "nodes": "--nodes", "array": "--seeds and --parallel",
    "job-name": "--name", "cpus-per-task": "--cpus", "ntasks-per-node": "--gpus",
    "gpus-per-node": "--gpus", "ntasks": "--nodes and --gpus", "signal": "--notice",
    "output": "OUTPUT_DIR", "error": "OUTPUT_DIR",
}  # fmt: skip


def option_of_sbatch(word: str) -> tuple[str, str | bool]:
    """Return key and value of `partition=gpu`; that of `exclusive`, which has none, is True."""
    key, equals, value = word.lstrip("-").partition("=")
    key = key.replace("_", "-")
    if not re.fullmatch("[a-z][a-z0-9-]+", key) or not word.isprintable():
        raise argparse.ArgumentTypeError(
            f"{word!r:.60}: an option of sbatch by its long name, as partition=gpu"
        )
    if said := OF_SBATCH.get(key):
        raise argparse.ArgumentTypeError(f"{word!r:.60}: {said} says it")
    return key, value if equals else True


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: options that don't go together, or a number that can't be.
    """
    parser = CommandParser("submit", __doc__, "--hours H --cfg FILE [options] [KEY VALUE ...]")
    add = parser.add_argument
    parser.add_cfg("recipe, as of `timesformer run`")
    add("--nodes", type=int, default=1, metavar="N", help="machines (1)")
    add("--gpus", type=int, metavar="G", help="on each of them (NUM_GPUS of the recipe)")
    add("--hours", type=float, required=True, metavar="H",
        help="that a job may take; the run goes on in the next one")  # fmt: skip
    add("--cpus", type=int, metavar="C",
        help="cores for each GPU (one more than DATA_LOADER.NUM_WORKERS)")  # fmt: skip
    add("--seeds", type=seeds_of, default=[], metavar="N,N",
        help="a run for each RNG_SEED, in OUTPUT_DIR/seed_N")  # fmt: skip
    add("--parallel", type=int, metavar="P", help="of these, at a time (all; with --local, one)")
    add("--tries", type=int, default=3, metavar="N",
        help="attempts in a row that may end without a new checkpoint (3)")  # fmt: skip
    add("--notice", type=int, default=120, metavar="S",
        help="seconds before the end at which a run is told to save (120)")  # fmt: skip
    add("--name", default="timesformer", help="of the job (%(default)s)")
    add("--sbatch", type=option_of_sbatch, action="append", default=[], metavar="KEY=VALUE",
        help="another option of sbatch, "
        "as partition=gpu or exclusive; may be given often")  # fmt: skip
    add("--setup", action="append", default=[], metavar="LINE",
        help="a line of shell before the run, e.g. 'module load cuda'; likewise")  # fmt: skip
    add("--local", action="store_true", help="run on this machine, and wait for the end")
    add("--dry-run", action="store_true", help="print the script for sbatch, and do nothing")
    parser.add_pairs()
    args = parser.parse(argv)
    parser.need_positive(args, "--nodes", "--cpus", "--parallel", "--tries", "--notice")
    parser.need_above_zero(args, "--hours")
    if args.gpus is not None and args.gpus < 0:
        raise UserError(f"--gpus {args.gpus}: must be 0 or more")
    if args.local:
        why = "is for SLURM; --local runs on this machine alone"
        parser.refuse(args, ["--nodes", "--sbatch", "--dry-run", "--cpus"], why)
    if args.hours * 3600 <= args.notice:
        raise UserError(f"--hours {args.hours:g}: no longer than --notice {args.notice} seconds")
    return args


def checked(args: argparse.Namespace) -> CfgNode:
    """Return the config that the tasks will have together.

    Raises:
        UserError: it can't work, or says what an option says.
    """
    said = dict(zip(args.opts[::2], args.opts[1::2], strict=True))
    for key, why in {**OURS, **({"RNG_SEED": "--seeds says it"} if args.seeds else {})}.items():
        if key in said:
            raise UserError(f"{key} {said[key]}: leave it out: {why}")
    gpus = ["NUM_GPUS", str(args.gpus)] if args.gpus is not None else []
    opts = [*args.opts, *gpus, "NUM_SHARDS", str(args.nodes), "SHARD_ID", "0"]
    cfg = load_recipe(argparse.Namespace(**{**vars(args), "opts": opts}))
    if cfg.TRAIN.ENABLE and not cfg.TRAIN.AUTO_RESUME:
        raise UserError(
            "TRAIN.AUTO_RESUME False: each time that the job is queued again, the run would start "
            "over: leave it out"
        )
    if args.local:
        check_devices(cfg)
    elif not args.cpus and is_auto("DATA_LOADER.NUM_WORKERS", cfg.DATA_LOADER.NUM_WORKERS):
        raise UserError(
            "DATA_LOADER.NUM_WORKERS auto takes the cores that a job gets: say by --cpus how many "
            "each GPU is to have"
        )
    return cfg


def check_lists(cfg: CfgNode, local: bool) -> None:
    """Read the lists that the run will read, where they are here; else say that they aren't.

    A run on this machine (`local`) says itself what is missing, after what its folder lacks.

    Raises:
        UserError: what the job would end with at once.
    """
    root = cfg.DATA.PATH_TO_DATA_DIR
    if not is_url(root) and not is_folder(root):
        if not local:
            print(
                f"DATA.PATH_TO_DATA_DIR {root}: not on this machine, so its lists weren't checked",
                file=sys.stderr,
            )
        return
    from timesformer.datasets.build import build_dataset  # --help doesn't wait for torch

    wanted = {"train": cfg.TRAIN.ENABLE, "val": cfg.TRAIN.ENABLE and cfg.TRAIN.EVAL_PERIOD}
    for split, of in [*wanted.items(), ("test", cfg.TEST.ENABLE)]:
        if of:
            build_dataset((cfg.TEST if split == "test" else cfg.TRAIN).DATASET, cfg, split)


def main(argv: Sequence[str] | None = None) -> None:
    """Submit, or run here, or print."""
    args = parse_args(argv)
    cfg = checked(args)
    words = ["--cfg", args.cfg_file, *args.opts, "NUM_GPUS", str(cfg.NUM_GPUS)]
    output_dir = Path(cfg.OUTPUT_DIR).absolute()
    folder = output_dir / cluster.FOLDER
    runs = cluster.runs_of(words, output_dir, args.seeds, args.tries, args.notice)
    resources = cluster.Resources(
        nodes=args.nodes,
        gpus=cfg.NUM_GPUS,
        minutes=math.ceil(args.hours * 60),
        cpus=args.cpus or cfg.DATA_LOADER.NUM_WORKERS + 1,  # with --local it says nothing
        notice=args.notice,
        parallel=args.parallel or (1 if args.local else len(runs)),
        name=args.name,
        sbatch=dict(args.sbatch),
        setup=args.setup,
    )
    here = args.local or args.dry_run
    executor = None if here else cluster.slurm_executor(resources, folder)
    check_lists(cfg, args.local)
    if args.dry_run:
        print(cluster.sbatch_script(resources, runs, folder), end="")
        return
    cluster.refuse_used(runs, folder)
    if executor is None:
        failed = cluster.run_here(resources, runs, folder)
        for place, why in failed.items():
            print(f"error: {place}: {why}", file=sys.stderr)
        sys.exit(1 if failed else 0)
    jobs = cluster.submit(executor, runs, folder)
    job = jobs[0].job_id.partition("_")[0]
    print(f"job {job}: {counted(len(jobs), 'run')} in {output_dir}")
    print(f"what they say: {folder}; how they do: squeue -j {job}; end them: scancel {job}")
