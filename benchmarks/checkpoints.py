"""How long training waits for a checkpoint: while it is written, or copied for a thread to write.

    python benchmarks/checkpoints.py --folder FOLDER

TimeSformer with divided attention and what its optimizer has gathered, on the GPU if there is one.
Each way saves a few times in a process of its own: the first time takes memory for the copy, which
the others use again. Reading back is what resuming takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from multiprocessing.queues import Queue

import torch

from timesformer.config.defaults import get_cfg
from timesformer.engine.interruption import Interruption
from timesformer.engine.saving import Saver
from timesformer.models.vit import TimeSformer
from timesformer.utils.checkpoint import contents, get_path_to_checkpoint, read_checkpoint
from timesformer.utils.text import format_table

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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--saves", type=int, default=4)
    args = parser.parse_args()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, {where}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; median of all saves but the first"
    )
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
