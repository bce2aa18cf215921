"""What training a part of a model gives, and what it takes, against training all of it.

python benchmarks/small_budgets.py [--data DIR] [--output DIR]

Accuracy and seconds are of the small image-started model on Synthetic (see image_start.py): all of
it, what image weights lack and the head, LoRA, and the head alone. Memory is that of a training
step of ViT-B, 8 frames of 224², each way in a process of its own.
Writes small_budgets.txt to DIR. What is there already of a run isn't run again.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from image_start import (
    TIME_OVER_PATCHES,
    parser_of,
    recipe,
    take_videos,
    train_image_model,
    train_video_model,
)
from safetensors.torch import save_file

from timesformer.config.defaults import get_cfg
from timesformer.engine.fits import BESIDE_LORA, HEAD, TEMPORAL
from timesformer.engine.optimizer import construct_optimizer
from timesformer.models.build import choose_trained, make_model
from timesformer.utils.errors import run_tool
from timesformer.utils.text import format_table

HIGH = 4e-3  # four times the recipe's learning rate
WAYS: dict[str, tuple[float, tuple[object, ...]]] = {
    "all": (1e-3, ()),
    "temporal and head": (HIGH, ("TRAIN.FREEZE", TEMPORAL)),
    "LoRA of rank 8, temporal_fc and head": (HIGH, ("LORA.RANK", 8, "TRAIN.FREEZE", BESIDE_LORA)),
    "head": (HIGH, ("TRAIN.FREEZE", HEAD)),
    "all, at the others' rate": (HIGH, ()),
}
CLIPS = 2  # of the step whose memory is measured


def one_step(options: Sequence[object], results: multiprocessing.Queue) -> None:
    """Make a training step of ViT-B; tell its memory beyond what the libraries take, and more."""
    torch.set_num_threads(1)
    cfg = get_cfg()
    cfg.merge_from_list(["NUM_GPUS", 0, "SOLVER.OPTIMIZING_METHOD", "adamw", *options])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = make_model(cfg)
    choose_trained(cfg, model)
    optimizer, clips = construct_optimizer(model, cfg), torch.randn(CLIPS, 3, 8, 224, 224)
    seconds = []
    for _ in range(2):  # the first one makes the optimizer's state
        start = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(clips), torch.zeros(CLIPS).long()).backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    results.put({"trained": trained, "GiB": (peak - before) / 2**20, "seconds": seconds[-1]})


def kept(path: Path, make: Any) -> Any:
    """Return what a JSON file holds; made, and written, where it isn't there."""
    if not path.exists():
        path.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def measure_step(options: Sequence[object]) -> dict[str, float]:
    """Measure a step in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=one_step, args=(options, results))
    process.start()
    found: dict[str, float] = results.get()
    process.join()
    return found


def measure_run(output: Path, data: Path, epochs: int, options: Sequence[object]) -> dict[str, Any]:
    """Train; return the accuracy after each epoch, seconds, and CPU seconds of the model."""
    wall, own = time.perf_counter(), time.process_time()
    curve = train_video_model(output, data, epochs, *options)
    lines = map(json.loads, (output / "stats.jsonl").read_text().splitlines())
    trained = next(line["trained_params"] for line in lines if line["split"] == "start")
    seconds = {"wall": time.perf_counter() - wall, "own": time.process_time() - own}
    return {"curve": curve, "trained": trained} | seconds


def image_weights(output: Path, data: Path, frames: int, epochs: int) -> dict[str, float]:
    """Train the image model and save it."""
    model, accuracy, scale = train_image_model(recipe(output, data, 1), frames, epochs)
    save_file(model.state_dict(), output / "image_vit.safetensors")
    return {"accuracy": accuracy, "scale": scale}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = parser_of(__doc__, "runs/small_budgets", 10)
    args = parser.parse_args(argv)
    out = args.output
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = take_videos(args.data, out / "data", args.videos)
    image = kept(
        out / "image.json", lambda: image_weights(out, data, args.frames, args.image_epochs)
    )
    start = ["TIMESFORMER.PRETRAINED_MODEL", str(out / "image_vit.safetensors")]
    start += ["TIMESFORMER.INIT", "image", "TIMESFORMER.TIME_EMBED_AMPLITUDE"]
    start += [round(TIME_OVER_PATCHES * image["scale"], 2)]
    rows: list[tuple[object, ...]] = [
        ("trained", "parameters", "top-1 %", "wall s", "model's CPU s", "lr",
         "ViT-B: parameters", "GiB", "CPU s/step"),
    ]  # fmt: skip
    for i, (name, (rate, options)) in enumerate(WAYS.items()):
        step = kept(out / f"step{i}.json", lambda options=options: measure_step(options))
        more = (*start, *options, "SOLVER.BASE_LR", rate, "TRAIN.EVAL_PERIOD", args.epochs)
        run = kept(
            out / f"run{i}.json",
            lambda more=more, i=i: measure_run(out / f"run{i}", data, args.epochs, more),
        )
        cells = (f"{run['curve'][-1]:.1f}", f"{run['wall']:.0f}", f"{run['own']:.0f}", f"{rate:g}")
        memory = (f"{step['trained']:,}", f"{step['GiB']:.2f}", f"{step['seconds']:.1f}")
        rows.append((name, f"{run['trained']:,}", *cells, *memory))
        print(format_table(rows[-1:]), flush=True)
    steps = args.videos // 32 * args.epochs
    text = (
        f"Synthetic, {args.videos} videos, {steps} steps of 32 clips, from an image model of "
        f"{image['accuracy']:.1f} % of its 18 classes.\nViT-B: a step of {CLIPS} clips of 8×224², "
        "AdamW, float32: peak memory beyond the libraries'.\n\n" + format_table(rows)
    )
    print(text)
    (out / "small_budgets.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
