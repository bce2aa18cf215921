"""What compiling the blocks takes, and what it gives: TRAIN.COMPILE, TEST.COMPILE.

    python benchmarks/compiling.py [--depth 12 --width 768 --frames 8 --side 224 --batch 2 3 4]

Each way runs in a process of its own, first with an empty cache of code, then with what that left.
Seconds of processors, those of compilers among them, say more than seconds on a machine that others
use too. Forward passes and steps of both ways are timed in turns, in one process.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from torch._dynamo.utils import counters

from timesformer.inference.measure import timed
from timesformer.models.attention import SpaceTimeBlock
from timesformer.models.compiling import compile_blocks
from timesformer.models.vit import TimeSformer
from timesformer.utils.text import format_table

HEADER = ("way", "cache", "what", "first s", "first CPU s", "compilations", "other batches")


def processors() -> float:
    """Return the seconds that this process and those that it has waited for have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def made(args: argparse.Namespace, way: str) -> TimeSformer:
    """Make the model; ways are eager, blocks, and each: each block by itself, as torch does."""
    torch.manual_seed(0)
    model = TimeSformer(
        img_size=args.side,
        num_frames=args.frames,
        num_classes=400,
        embed_dim=args.width,
        depth=args.depth,
        num_heads=max(1, args.width // 64),
        attention_type=args.scheme,
        drop_path_rate=0.1,
    )
    if way == "blocks":
        compile_blocks("blocks", model)
    if way == "each":
        for module in model.modules():
            if isinstance(module, SpaceTimeBlock):
                module.compile()
    return model


def forward(model: TimeSformer, clips: torch.Tensor) -> None:
    """Compute scores."""
    with torch.no_grad():
        model.eval()(clips)


def step(model: TimeSformer, clips: torch.Tensor) -> None:
    """Compute gradients."""
    model.zero_grad(set_to_none=True)
    model.train()(clips).logsumexp(1).mean().backward()


DONE: dict[str, Callable[[TimeSformer, torch.Tensor], None]] = {"forward": forward, "step": step}


def first(args: argparse.Namespace, way: str, cache: str) -> list[list[str]]:
    """Return rows of a table: what the first forward pass and the first step take."""
    model, rows = made(args, way), []
    before = counters["stats"]["unique_graphs"]
    for what, do in DONE.items():
        graphs, wall, used = [], time.perf_counter(), processors()
        for i, batch in enumerate(args.batch):
            do(model, torch.rand(batch, 3, args.frames, args.side, args.side))
            if i == 0:
                wall, used = time.perf_counter() - wall, processors() - used
            graphs.append(counters["stats"]["unique_graphs"] - before)
        row = [way, cache, what, f"{wall:.1f}", f"{used:.1f}", str(graphs[0])]
        rows.append([*row, str(graphs[-1] - graphs[0])])
        before = counters["stats"]["unique_graphs"]
    return rows


def in_turns(args: argparse.Namespace) -> list[list[str]]:
    """Return rows of a table: medians of both ways, and their ratio."""
    models, rows = [made(args, way) for way in ("eager", "blocks")], []
    clips = torch.rand(args.batch[0], 3, args.frames, args.side, args.side)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    for what, do in DONE.items():
        taken = timed([partial(do, m) for m in models], clips, args.rounds, math.inf, clock)
        eager, compiled = (statistics.median(times) / 1e3 for times in taken)
        seconds = (f"{eager:.3f}", f"{compiled:.3f}", f"{eager / compiled:.2f}")
        rows.append([what, str(len(clips)), *seconds])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scheme", default="divided_space_time")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--ways", nargs="+", default=["blocks", "each"])
    parser.add_argument("--first", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first:
        for row in first(args, *args.first.split("+")):
            print("\t".join(["row", *row]))
        return
    rows = []
    for way in args.ways:
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("empty", "there"):
                command = [sys.executable, *sys.argv, "--first", f"{way}+{cache}"]
                env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}
                done = subprocess.run(
                    command, env=env, check=True, stdout=subprocess.PIPE, text=True
                )
                lines = [line.split("\t") for line in done.stdout.splitlines()]
                rows += [line[1:] for line in lines if line[0] == "row"]
                print("\n".join("  ".join(row) for row in rows[-2:]), file=sys.stderr, flush=True)
    print(" ".join(f"{name} {value}" for name, value in vars(args).items() if value))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print(format_table([HEADER, *rows]))
    header = ("what", "clips", "eager s", "compiled s", "eager / compiled")
    print(format_table([header, *in_turns(args)]))


if __name__ == "__main__":
    main()
