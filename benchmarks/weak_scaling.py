"""Weak scaling: clips a second of training steps, with the same clips on each rank.

On one node, by itself, with as many processes as `--ranks` says, one number after the other:

    python benchmarks/weak_scaling.py --cfg Kinetics/TimeSformer_divST_8x32_224 --ranks 1 2 4 8 \
        --clips 16 --out scaling.jsonl

Over nodes as a task for each GPU, once for each number; lines are added to the file:

    srun --nodes 4 --ntasks-per-node 8 --gpus-per-node 8 python benchmarks/weak_scaling.py \
        --cfg Kinetics/TimeSformer_divST_8x32_224 --clips 16 --out scaling.jsonl

A step is forward, loss, backward with the exchange of gradients, and the optimizer, on random clips
that lie on the device: what the network between GPUs costs, and not loading. The time of a step is
the median over steps of the slowest rank's; the efficiency is clips a second of a rank against the
fewest ranks in the file with the same device, recipe and clips.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from timesformer.config.node import CfgNode
from timesformer.engine.optimizer import construct_optimizer
from timesformer.models.build import build_model, view_shape
from timesformer.utils.distributed import device_for, from_main, gather_objects, get_world, is_main
from timesformer.utils.files import append_line
from timesformer.utils.launchers import tasks
from timesformer.utils.parser import CommandParser, load_recipe
from timesformer.utils.precision import autocast
from timesformer.utils.starting import launch
from timesformer.utils.text import format_table

WARM_UP = 3


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(None, __doc__, "--cfg FILE --out FILE [options] [KEY VALUE ...]")
    parser.add_cfg("recipe of the model, its optimizer and TRAIN.AMP")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="of JSON lines")
    parser.add_argument("--ranks", type=int, nargs="+", default=[], metavar="N",
                        help="numbers of processes to start here")  # fmt: skip
    parser.add_argument("--clips", type=int, default=8, metavar="N", help="of each rank (8)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (20)")
    parser.add_pairs()
    args = parser.parse(None)
    parser.need_positive(args, "--clips")
    return args


def measure(cfg: CfgNode, clips: int, seconds: float, out: Path) -> None:
    """Train on noise, and add a line to the file."""
    device, world = device_for(cfg), get_world()
    model = build_model(cfg).train()
    optimizer = construct_optimizer(model, cfg)
    for group in optimizer.param_groups:
        group["lr"] = 1e-6  # labels mean nothing here: weights mustn't go to infinity
    inputs = torch.randn(clips, *view_shape(cfg)[-4:], device=device)
    labels = torch.randint(cfg.MODEL.NUM_CLASSES, (clips,), device=device)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, cfg.TRAIN.AMP):
            logits = model(inputs).float()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    warm = [step() for _ in range(WARM_UP)]
    steps = from_main(max(5, round(seconds / warm[-1])))
    times = gather_objects([step() for _ in range(steps)])
    if is_main():
        slowest = [max(of_ranks) for of_ranks in zip(*times, strict=True)]
        name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
        line = {
            "recipe": os.environ["RECIPE"], "device": name, "clips": clips,
            "ranks": world.size, "nodes": world.size // world.local_size, "steps": steps,
            "seconds": round(statistics.median(slowest), 5),
            "least": round(min(slowest), 5), "most": round(max(slowest), 5),
        }  # fmt: skip
        append_line(out, json.dumps(line))
        print(json.dumps(line), flush=True)


def table(path: Path) -> str:
    """Return what is in the file, each line against the fewest ranks of its kind."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first: dict[tuple[str, str, int], float] = {}
    rows = [("recipe", "device", "nodes", "ranks", "clips a rank", "ms a step", "least", "most",
             "clips/s", "efficiency")]  # fmt: skip
    for line in sorted(lines, key=lambda line: line["ranks"]):
        kind = line["recipe"], line["device"], line["clips"]
        rate = line["clips"] / line["seconds"]
        rows.append((
            *kind[:2], line["nodes"], line["ranks"], line["clips"],
            *(f"{1e3 * line[key]:.1f}" for key in ("seconds", "least", "most")),
            f"{rate * line['ranks']:.4g}", f"{rate / first.setdefault(kind, rate):.2f}",
        ))  # fmt: skip
    return format_table(rows)


def main() -> None:
    """Measure as one rank of several, or start them."""
    args = parse_args()
    os.environ["RECIPE"] = Path(args.cfg_file).stem
    cfg = load_recipe(args)
    for ranks in args.ranks:
        words = [sys.argv[0], "--cfg", args.cfg_file, "--out", str(args.out)]
        words += ["--clips", str(args.clips), "--seconds", str(args.seconds)]
        gpus = ["NUM_GPUS", str(ranks if cfg.NUM_GPUS else 0), "TRAIN.BATCH_SIZE", str(ranks)]
        batch = ["GLOBAL_BATCH_SIZE", "0", "TEST.BATCH_SIZE", str(ranks)]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc-per-node={ranks}"]
        subprocess.run([*launcher, *words, *args.opts, *gpus, *batch], check=True)
    if not args.ranks:
        launch(cfg, "", partial(measure, clips=args.clips, seconds=args.seconds, out=args.out))
    found = None if args.ranks else tasks(cfg.NUM_GPUS, cfg.NUM_SHARDS)
    if found is None or (found.by == "srun" and found.rank == 0):
        print(table(args.out))


if __name__ == "__main__":
    main()
