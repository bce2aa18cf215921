"""How long training waits for what keeps it safe: checkpoints, and what is around each step.

    python benchmarks/checkpoints.py --folder FOLDER
    python benchmarks/checkpoints.py --steps 200 --data data/synthetic

The first: a checkpoint that is written, or copied for a thread to write. TimeSformer with divided
attention and what its optimizer has gathered, on the GPU if there is one. Each way saves a few
times in a process of its own: the first time takes memory for the copy, which the others use again.
Reading back is what resuming takes.

The second: a small model's training step (Synthetic/TimeSformer_divST_8_64, 8 clips, one thread) as
it is, with the watchdog's thread and the handlers of signals, and with DETERMINISTIC, in one
process and by turns. For a larger model the same microseconds are a smaller share. CPU seconds are
of all threads of the process: other work on the machine counts less there than on the clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from multiprocessing.queues import Queue
from typing import Any

import torch

from timesformer.config.defaults import get_cfg
from timesformer.engine import train as training
from timesformer.engine.interruption import Interruption
from timesformer.engine.saving import Saver
from timesformer.models.vit import TimeSformer
from timesformer.utils.checkpoint import contents, get_path_to_checkpoint, read_checkpoint
from timesformer.utils.determinism import deterministic
from timesformer.utils.parser import load_config, parse_args
from timesformer.utils.stopping import asked, noting_signals
from timesformer.utils.text import format_table
from timesformer.utils.watchdog import doing, watching

OPTIMIZERS = {"SGD with momentum": "sgd", "AdamW": "adamw"}
HEADER = (
    *("optimizer", "GB", "written", "waits s", "again s", "file there s", "read back s"),
    "more memory MiB",
)


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: str, kind: str, background: bool, saves: int, results: Queue) -> None:
    """Save some times, and put down the row of a table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = TimeSformer(img_size=224, num_classes=400, num_frames=8).to(device)
    if kind == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    optimizer.step()
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.TRAIN.CHECKPOINT_ASYNC, cfg.TRAIN.KEEP_CHECKPOINTS = folder, background, 1
    saver, before, waits, there = Saver(cfg, Interruption(cfg)), peak(), [], []
    for epoch in range(saves):
        began = time.monotonic()
        path = get_path_to_checkpoint(folder, epoch + 1)
        saver.save(path, contents(model, optimizer, epoch, cfg))
        waits.append(time.monotonic() - began)
        saver.wait()
        there.append(time.monotonic() - began)
    more = peak() - before
    began = time.monotonic()
    read_checkpoint(path)
    read = time.monotonic() - began
    size = path.stat().st_size
    path.unlink()
    results.put((size, waits, there, read, more))


class _FirstStep(Exception):  # noqa: N818  (a signal rather than an error)
    """Training has come to its first step, with these arguments."""


def step_of_a_run(folder: str, data: str) -> Callable[[], Any]:
    """Return what makes a training step of a run, again and again on the same clips."""
    pairs = f"NUM_GPUS 0 DATA.PATH_TO_DATA_DIR {data} OUTPUT_DIR {folder} LOG_MODEL_INFO False"
    pairs += " TRAIN.BATCH_SIZE 8 GLOBAL_BATCH_SIZE 8 DATA_LOADER.NUM_WORKERS 0"
    words = ["--cfg", "Synthetic/TimeSformer_divST_8_64", *pairs.split()]
    real = training.train_step

    def caught(*args: Any) -> Any:
        raise _FirstStep(*args)

    training.train_step = caught
    try:
        training.train(load_config(parse_args(words)))
    except _FirstStep as found:
        state, group, epoch, step = found.args
        state.optimizer.param_groups[0]["lr"] = 1e-6
        return lambda: real(state, group, epoch, step)
    raise AssertionError("a run without a step")


def around_steps(rounds: int, data: str) -> None:
    """Print what a step takes by itself and with what a run has around it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_step = step_of_a_run(folder, data)

        def guards() -> ExitStack:
            stack = ExitStack()
            stack.enter_context(noting_signals())
            stack.enter_context(watching(20, folder))
            return stack

        ways: dict[str, Callable[[], Any]] = {
            "alone": nullcontext,
            "watchdog and signals": guards,
            "DETERMINISTIC": lambda: deterministic(True),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for i in range(-3, rounds):
            for name in list(ways)[:: 1 if i % 2 else -1]:
                with ways[name]():
                    began = time.perf_counter(), time.process_time()
                    make_step()
                    took = time.perf_counter() - began[0], time.process_time() - began[1]
                if i >= 0:
                    times[name].append(took)
    rows = [("a step", "ms", "CPU ms", "against alone", "CPU against alone")]
    for name, found in times.items():
        medians = [1e3 * statistics.median(took) for took in zip(*found, strict=True)]
        ratios = [
            statistics.median(a[k] / b[k] for a, b in zip(found, times["alone"], strict=True))
            for k in (0, 1)
        ]
        shares = [f"{100 * (ratio - 1):+.2f} %" for ratio in ratios]
        rows.append((name, *(f"{median:.2f}" for median in medians), *shares))
    print(format_table(rows))
    for what, call in {"doing()": lambda: doing("step", "x"), "asked()": asked}.items():
        seconds = min(timeit.repeat(call, number=100_000, repeat=5)) / 100_000
        print(f"{what}, which a step calls in any case: {1e9 * seconds:,.0f} ns")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=0, help="of each kind, instead of saving")
    parser.add_argument("--data", default="data/synthetic", help="videos for them")
    parser.add_argument("--folder", help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--saves", type=int, default=4)
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, {where}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians"
        f"{'' if args.steps else ' of all saves but the first'}"
    )
    if args.steps:
        around_steps(args.steps, args.data)
        return
    rows: list[tuple[str, ...]] = [HEADER]
    context = multiprocessing.get_context("spawn")
    for name, kind in OPTIMIZERS.items():
        for background in (False, True):
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                results = context.Queue()
                process = context.Process(
                    target=measure, args=(folder, kind, background, args.saves, results)
                )
                process.start()
                size, waits, there, read, more = results.get()
                process.join()
            first, *later = waits
            median = sorted(later)[len(later) // 2]
            rows.append(
                (
                    *(name, f"{size / 1e9:.2f}", "by a thread" if background else "at once"),
                    *(f"{first:.2f}", f"{median:.2f}", f"{sorted(there)[len(there) // 2]:.2f}"),
                    *(f"{read:.2f}", f"{more:,.0f}"),
                )
            )
            print(".", end="", file=sys.stderr, flush=True)
    print(format_table(rows))


if __name__ == "__main__":
    main()
