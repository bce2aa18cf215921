"""What training on fewer tokens is worth on Synthetic: seconds to 95 %, and where they go.

timesformer make-synthetic --output data/synthetic
python benchmarks/fewer_tokens.py run --data data/synthetic --output runs/fewer [--only NAME …]
python benchmarks/fewer_tokens.py report --output runs/fewer

`run` trains the recipe of divided attention with each variant and seed, one after the other, in
processes of one thread, until it was at 95 % once or EPOCHS are over (the recipe's 8 suffice for
some seeds alone), and leaves out what is done. `report` prints a table of what there is and draws
fewer_tokens.png beside it. Seconds are those of the processor, which other work on a machine
doesn't lengthen by waiting (caches are shared all the same): `decode` is what reading the training
videos took, `model` all else in training. Validation counts for neither.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import PercentFormatter

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.utils.errors import run_tool
from timesformer.utils.text import format_table
from timesformer.visualization.style import blank_figure

RECIPE = Path(__file__).resolve().parents[1] / "configs/Synthetic/TimeSformer_divST_8_64.yaml"
GOAL = 95.0  # % of the validation videos
EPOCHS = 16
SEEDS = (0, 1, 2)
PLAIN = "all tokens"
VARIANTS: Mapping[str, Sequence[Any]] = {
    PLAIN: (),
    "TUBE_KEEP 0.75": ("TRAIN.TUBE_KEEP", 0.75),
    "TUBE_KEEP 0.5": ("TRAIN.TUBE_KEEP", 0.5),
    "MULTIGRID long": ("TRAIN.MULTIGRID", "long"),
    "MULTIGRID long, same batch": ("TRAIN.MULTIGRID", "long", "TRAIN.MULTIGRID_BATCH", False),
    "MULTIGRID short, same batch": ("TRAIN.MULTIGRID", "short", "TRAIN.MULTIGRID_BATCH", False),
}


class Reached(Exception):  # noqa: N818
    """A run is at GOAL."""


class Epoch(NamedTuple):
    """An epoch of a run: what it took since the run's start, and what the model knows then."""

    model: float  # processor seconds of training without reading
    decode: float  # of reading
    wall: float
    steps: int
    top1: float


def recipe(output: Path, data: Path, seed: int, keys: Sequence[Any]) -> CfgNode:
    """Return the recipe of divided attention, validated after each epoch and not tested."""
    cfg = get_cfg()
    cfg.merge_from_file(str(RECIPE))
    common = ["OUTPUT_DIR", str(output), "DATA.PATH_TO_DATA_DIR", str(data), "RNG_SEED", seed]
    common += ["TRAIN.EVAL_PERIOD", 1, "TRAIN.AUTO_RESUME", False, "TEST.ENABLE", False]
    common += ["TRAIN.TRACE_STEPS", 0, "TENSORBOARD.ENABLE", False, "LOG_MODEL_INFO", False]
    common += ["SOLVER.MAX_EPOCH", EPOCHS]
    common += ["DATA_LOADER.NUM_WORKERS", 0]  # so that one process has all the seconds
    cfg.merge_from_list([*common, *keys])
    check(cfg)
    return cfg


def train_one(output: Path, data: Path, seed: int, keys: Sequence[Any]) -> None:
    """Train a run in this process, and write what its epochs took to epochs.json."""
    import torch

    from timesformer.datasets.video_dataset import VideoDataset
    from timesformer.engine import train as engine

    torch.set_num_threads(1)
    epochs: list[Epoch] = []
    taken, reading = np.zeros(4), [0.0]
    train_epoch, eval_epoch = engine.train_epoch, engine.eval_epoch
    getitems = VideoDataset.__getitems__

    def read(self: VideoDataset, keys: Any) -> Any:
        began = time.process_time()
        items = getitems(self, keys)
        reading[0] += time.process_time() - began
        return items

    def timed(state: Any, loader: Any, epoch: int, *rest: Any) -> Any:
        reading[0] = 0.0
        began = time.process_time(), time.perf_counter()
        stats = train_epoch(state, loader, epoch, *rest)
        seconds, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        taken[:] += seconds - reading[0], reading[0], wall, loader.steps.count(epoch)
        return stats

    def judged(*args: Any) -> Any:
        validation = eval_epoch(*args)
        epochs.append(Epoch(*taken.tolist(), validation["top1_acc"]))
        if epochs[-1].top1 >= GOAL:
            raise Reached
        return validation

    VideoDataset.__getitems__ = read  # type: ignore[method-assign]
    engine.train_epoch, engine.eval_epoch = timed, judged
    with contextlib.suppress(Reached):
        engine.train(recipe(output, data, seed, keys))
    (output / "epochs.json").write_text(json.dumps([epoch._asdict() for epoch in epochs]))


def folder_of(output: Path, name: str, seed: int) -> Path:
    """Return the folder of a run."""
    return output / f"{name.replace(' ', '_').replace(',', '')}_{seed}"


def run(args: argparse.Namespace) -> None:
    """Train what isn't there yet, each run in a process of its own."""
    for seed in args.seeds:
        for name in args.only or VARIANTS:
            folder = folder_of(args.output, name, seed)
            if (folder / "epochs.json").exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            words = ["one", "--data", args.data, "--output", args.output, "--only", name]
            command = [sys.executable, __file__, *map(str, words), "--seeds", str(seed)]
            command += ["--keys", *args.keys] if args.keys else []
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            with (folder / "said.txt").open("w") as said:
                subprocess.run(command, stdout=said, stderr=said, check=True, env=environment)


def one(args: argparse.Namespace) -> None:
    """Train one run in this process."""
    (name,), (seed,) = args.only, args.seeds
    folder = folder_of(args.output, name, seed)
    train_one(folder, args.data, seed, [*VARIANTS[name], *args.keys])


def runs_in(output: Path) -> dict[str, list[list[Epoch]]]:
    """Return the epochs of all finished runs by variant."""
    found: dict[str, list[list[Epoch]]] = {}
    for name in VARIANTS:
        for seed in SEEDS:
            path = folder_of(output, name, seed) / "epochs.json"
            if path.exists():
                epochs = [Epoch(**epoch) for epoch in json.loads(path.read_text())]
                found.setdefault(name, []).append(epochs)
    return found


def at_goal(epochs: Sequence[Epoch]) -> tuple[float, float, float]:
    """Return epochs, model seconds and decoding seconds until GOAL is reached, between epochs.

    Validation comes after whole epochs; between two of them top-1 is taken to rise in a line. All
    are infinite where it wasn't reached.
    """
    if epochs[-1].top1 < GOAL:
        return (math.inf,) * 3
    before, epoch = [Epoch(0.0, 0.0, 0.0, 0, 0.0), *epochs][-2:]
    share = (GOAL - before.top1) / (epoch.top1 - before.top1)
    model = before.model + share * (epoch.model - before.model)
    decode = before.decode + share * (epoch.decode - before.decode)
    return len(epochs) - 1 + share, model, decode


def report(args: argparse.Namespace) -> None:
    """Print the table and draw the picture."""
    found = runs_in(args.output)
    rows, plain = [], None
    for name, runs in found.items():
        goals = np.array([at_goal(epochs) for epochs in runs])
        epochs, model, both = goals[:, 0], goals[:, 1], goals[:, 1] + goals[:, 2]
        middle = np.median(model), np.median(both)
        plain = plain or middle
        row = [name, f"{np.isfinite(model).sum()} of {len(runs)}"]
        row += [f"{sum(e[-1].steps for e in runs) / sum(e[-1].model for e in runs):.1f}"]
        row += [" ".join(map(_rounded, epochs))]
        for seconds, median, theirs in zip((model, both), middle, plain, strict=True):
            times = f"{theirs / median:.2f}" if math.isfinite(median) else "-"
            row += [" ".join(map(_rounded, seconds)), _rounded(median), times]
        rows.append([*row, " ".join(f"{e[-1].top1:.1f}" for e in runs)])
    head = ["variant", "reached", "steps/s", f"epochs to {GOAL:g} %", "model s", "median", "×"]
    head += ["model + decode s", "median", "×", "top-1 at the end, %"]
    text = format_table([head, *rows])
    print(text)
    (args.output / "fewer_tokens.txt").write_text(text + "\n")
    draw(found, args.output / "fewer_tokens.png")


def _rounded(number: float) -> str:
    return f"{number:.{1 if number < 20 else 0}f}" if math.isfinite(number) else "-"


def draw(found: Mapping[str, list[list[Epoch]]], path: Path) -> None:
    """Draw top-1 over the model's seconds, each run as a line."""
    figure = blank_figure(9, 4)
    axes = figure.subplots()
    for i, (name, runs) in enumerate(found.items()):
        for seed, epochs in enumerate(runs):
            x, y = [0.0, *(e.model for e in epochs)], [100 / 6, *(e.top1 for e in epochs)]
            label = name if not seed else None
            axes.plot(x, y, color=f"C{i}", marker=".", linewidth=1.2, label=label)
    axes.axhline(GOAL, color="grey", linewidth=0.8, linestyle="--")
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_xlabel("processor seconds of the model in training")
    axes.set_ylabel("top-1 of 300 validation videos")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["run", "one", "report"])
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--output", type=Path, default=Path("runs/fewer"))
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--keys", nargs="*", default=[], help="KEY VALUE … of all variants")
    args = parser.parse_args(argv)
    {"run": run, "one": one, "report": report}[args.what](args)


if __name__ == "__main__":
    run_tool(main)
