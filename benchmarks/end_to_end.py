"""Measures how long training waits for videos: of your own files and of prepared copies of them.

    python benchmarks/end_to_end.py --videos FOLDER [--output FILE]

Epochs of `timesformer run` in this process, in turns: files as they are and as `prepare-data` makes
them, a small and a base model, several numbers of workers. Labels are made up, and files come again
and again. Then how many cores have to decode for a GPU, from the CPU time that a clip takes, which
depends little on how busy the machine is. With `--gpu` also pinned memory both ways.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from loading import prepare_videos, train_set
from planning import JOBS, PEAK
from report import environment

from timesformer.engine.train import train
from timesformer.utils.errors import run_tool
from timesformer.utils.parser import load_config, parse_args
from timesformer.utils.peak_rates import FLOPS_PER_MAC
from timesformer.utils.text import counted, format_table

RECIPE = "Kinetics/TimeSformer_divST_8x32_224"
RAW, PREPARED = "as they are", "prepared"
CLASSES = 4
HEADER = (
    "model", "files", "workers", "pinned", "clips/s", "s a step", "wait s a step", "wait, %",
    "of it first s", "limit",
)  # fmt: skip
# Clips a second that a GPU may take; TimeSformer's cost is that of `planning.py`.
RATES = (25, 50, 100, 200, 375)
GFLOP_OF_A_CLIP = FLOPS_PER_MAC["train"] * JOBS[0].gmacs


class Model(NamedTuple):
    """A model and how much it is trained.

    Attributes:
        name: of the table.
        options: of the config.
        batch: clips of a step.
        steps: of an epoch.
    """

    name: str
    options: tuple[str, ...]
    batch: int
    steps: int


class Case(NamedTuple):
    """What is measured."""

    model: Model
    files: str
    workers: int
    pinned: bool = False


def models(args: argparse.Namespace) -> list[Model]:
    """Return the small and the base model, as far as they are asked for."""
    size = ("DATA.TRAIN_CROP_SIZE", "112", "DATA.TEST_CROP_SIZE", "112")
    jitter = ("DATA.TRAIN_JITTER_SCALES", "[128,160]")
    tiny = ("MODEL.MODEL_NAME", "vit_tiny_patch16_224", *size, *jitter)
    made = [
        Model("ViT-Ti, 8×112²", tiny, args.batch, args.small_steps),
        Model("ViT-B, 8×224²", (), args.base_batch, args.base_steps),
    ]
    return [model for model in made if model.steps]


def cases(args: argparse.Namespace) -> list[Case]:
    """Return what is measured in a round."""
    pinned = (False, True) if args.gpu else (False,)
    found = itertools.product(models(args), (RAW, PREPARED), args.workers, pinned)
    return [Case(*case) for case in found]


def write_list(folder: Path, paths: Sequence[str], count: int) -> None:
    """Write a training list of so many videos; files come again under other names."""
    (folder / "videos").mkdir()
    rows = []
    for i, path in zip(range(count), itertools.cycle(paths), strict=False):
        link = folder / "videos" / f"{i}{Path(path).suffix}"
        link.symlink_to(path)
        rows.append(f"{link} {i % CLASSES}\n")
    (folder / "train.csv").write_text("".join(rows), encoding="utf-8")


def epoch_of(case: Case, paths: Sequence[str], gpu: bool) -> dict[str, Any]:
    """Train an epoch, and return what the run says of it."""
    model = case.model
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_list(folder, paths, model.batch * model.steps)
        options = {
            "OUTPUT_DIR": folder / "run",
            "NUM_GPUS": int(gpu),
            "LOG_MODEL_INFO": False,
            "GLOBAL_BATCH_SIZE": model.batch,
            "TRAIN.BATCH_SIZE": model.batch,
            "TRAIN.EVAL_PERIOD": 0,
            "TRAIN.TRACE_STEPS": 0,
            "TRAIN.AMP": "bf16" if gpu else "none",
            "TEST.ENABLE": False,
            "DATA.PATH_TO_DATA_DIR": folder,
            "DATA.CLASS_NAMES": "''",
            "MODEL.NUM_CLASSES": CLASSES,
            "TIMESFORMER.PRETRAINED_MODEL": "''",
            "TIMESFORMER.INIT": "scratch",
            "SOLVER.MAX_EPOCH": 1,
            "SOLVER.BASE_LR": 1e-4,
            "DATA_LOADER.NUM_WORKERS": case.workers,
            "DATA_LOADER.PIN_MEMORY": case.pinned,
            "TENSORBOARD.ENABLE": False,
        }
        words = [str(word) for pair in options.items() for word in pair]
        cfg = load_config(parse_args(["--cfg", RECIPE, *words, *model.options]))
        with contextlib.redirect_stdout(io.StringIO()):
            train(cfg)
        lines = map(json.loads, (folder / "run" / "stats.jsonl").read_text().splitlines())
        return next(line for line in lines if line["split"] == "train_epoch")


def row(case: Case, lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the cells under HEADER: medians of the rounds."""

    def middle(key: str) -> float:
        return statistics.median(line[key] for line in lines)

    limits = "/".join(sorted({line["limit"] for line in lines}))
    seconds = middle("step_seconds") / case.model.steps
    return (
        *(case.model.name, case.files, str(case.workers), "yes" if case.pinned else "no"),
        *(f"{middle('clips_per_s'):.3g}", f"{seconds:.2f}", f"{middle('dt_data'):.3f}"),
        *(f"{100 * middle('data_wait'):.1f}", f"{middle('data_wait_first'):.2f}", limits),
    )


def cpu_seconds(paths: Sequence[str], rounds: int) -> float:
    """Return the CPU time of reading a training clip of 8×224² with one thread, of rounds."""
    data, sums = train_set(paths), []
    for turn in range(rounds):
        start = time.process_time()
        for index in range(len(paths)):
            _ = data[(index, turn)]
        sums.append(time.process_time() - start)
    return statistics.median(sums) / len(paths)


def cores_table(seconds: dict[str, float]) -> str:
    """Return how many cores decode for a GPU that takes so many clips a second."""
    rows: list[tuple[str, ...]] = [("clips/s of a GPU", "MFU of an H100", *seconds)]
    for rate in RATES:
        share = rate * GFLOP_OF_A_CLIP / 1e3 / PEAK["h100"]
        cores = (f"{rate * each:.1f}" for each in seconds.values())
        rows.append((str(rate), f"{100 * share:.0f} %", *cores))
    return format_table(rows)


def report(args: argparse.Namespace) -> Iterator[str]:
    """Measure everything; yields the text by parts."""
    began = os.getloadavg()[0]
    yield environment()
    with tempfile.TemporaryDirectory() as temporary:
        prepared, bad = prepare_videos(args.videos, Path(temporary))
        files = {
            RAW: [str(Path(path).resolve()) for path in prepared],
            PREPARED: list(prepared.values()),
        }
        yield (
            f"{args.videos.name}: {len(prepared)} files, {len(bad)} can't be read; "
            f"{counted(args.rounds, 'round')}, in turns, medians; load {began:.1f} at the start"
        )
        yield "workers 0: the process that trains reads, too; on a CPU, workers and model share it"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        seconds = {name: cpu_seconds(paths, args.rounds) for name, paths in files.items()}
        torch.set_num_threads(threads)
        found: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases(args)}
        for _ in range(args.rounds):
            for case, lines in found.items():
                lines.append(epoch_of(case, files[case.files], args.gpu))
                print(*row(case, lines[-1:]), sep="  ", file=sys.stderr, flush=True)
    yield ""
    yield format_table([HEADER, *(row(case, lines) for case, lines in found.items())])
    if not args.gpu:
        yield "Pinned memory has no effect without a GPU: not measured."
    yield ""
    each = ", ".join(f"{1e3 * value:.1f} ms {name}" for name, value in seconds.items())
    yield f"CPU time of reading a clip of 8×224², one core: {each}. So many cores feed one GPU:"
    yield ""
    yield cores_table(seconds)
    yield f"load {os.getloadavg()[0]:.1f} at the end"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--videos", type=Path, required=True, metavar="FOLDER")
    add("--output", type=Path, metavar="FILE", help="write the report there too")
    add(
        "--gpu", action="store_true", help="train on a GPU, in bf16, with pinned memory and without"
    )
    add("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="numbers (0 1 2)")
    add("--rounds", type=int, default=3, metavar="N", help="(3)")
    add("--batch", type=int, default=4, metavar="N", help="clips of the small model's steps (4)")
    add("--base-batch", type=int, default=2, metavar="N", help="of the base model's (2)")
    add("--small-steps", type=int, default=16, metavar="N", help="of the small model (16)")
    add("--base-steps", type=int, default=3, metavar="N", help="of the base model (3)")
    args = parser.parse_args(argv)
    lines = []
    for line in report(args):
        print(line, flush=True)
        lines.append(line)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
