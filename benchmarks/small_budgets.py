"""What training a part of a model gives, and what it takes, against training all of it.

python benchmarks/small_budgets.py [--data DIR] [--output DIR] [--seeds 0 1 2]

Accuracy and seconds are of the small image-started model on Synthetic (see image_start.py): all of
it, what image weights lack and the head, LoRA, and the head alone, also on features that are
computed once (timesformer probe). Seconds are the processor's in training, on one thread, without
reading videos. Memory is that of a training step of ViT-B, 8 frames of 224², each way in a process
of its own, and what is worked out for it without the tenth that is added for operators.
Writes small_budgets.txt to DIR. What is there already of a run isn't run again.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
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
from report import peak_memory
from safetensors.torch import save_file

from timesformer.config.defaults import get_cfg
from timesformer.engine.fits import BESIDE_LORA, HEAD, TEMPORAL
from timesformer.engine.needs import training_needs
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
PROBE = "head, on features that are computed once"
CLIPS = 2  # of the step whose memory is measured


def one_step(options: Sequence[object], results: multiprocessing.Queue) -> None:
    """Make a training step of ViT-B; tell its memory beyond what the libraries take, and more."""
    torch.set_num_threads(1)
    cfg = get_cfg()
    cfg.merge_from_list(["NUM_GPUS", 0, "SOLVER.OPTIMIZING_METHOD", "adamw", *options])
    needs = training_needs(cfg)
    said = needs.weights + needs.gathered + needs.fixed + CLIPS * needs.per_clip
    before = peak_memory()
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
    gib = (peak_memory() - before) / 2**30
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = {"trained": trained, "GiB": gib, "worked out": said / 2**30}
    results.put(found | {"seconds": seconds[-1]})


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
    """Train; return the accuracy at the end, and the processor seconds of the model."""
    from timesformer.datasets.video_dataset import VideoDataset
    from timesformer.engine import train as engine

    taken, (train_epoch, getitems) = [0.0], (engine.train_epoch, VideoDataset.__getitems__)

    def counted(sign: int, function: Any) -> Any:
        def timed(*args: Any) -> Any:
            began = time.process_time()
            result = function(*args)
            taken[0] += sign * (time.process_time() - began)
            return result

        return timed

    def epoch_of(*args: Any) -> Any:
        VideoDataset.__getitems__ = counted(-1, getitems)  # type: ignore[method-assign]
        try:
            return counted(1, train_epoch)(*args)
        finally:
            VideoDataset.__getitems__ = getitems  # type: ignore[method-assign]

    engine.train_epoch = epoch_of
    try:
        curve = train_video_model(output, data, epochs, *options)
    finally:
        engine.train_epoch = train_epoch
    lines = map(json.loads, (output / "stats.jsonl").read_text().splitlines())
    trained = next(line["trained_params"] for line in lines if line["split"] == "start")
    return {"accuracy": curve[-1], "trained": trained, "seconds": taken[0]}


def probed(output: Path, data: Path, run: Path) -> dict[str, Any]:
    """Train a head on features, computed once, of a run of which nothing but the head was."""
    options = ["--checkpoint", run, "--out", output / "probe"]
    command = [sys.executable, "-m", "timesformer", "probe", data, *options]
    said = subprocess.run(
        [*map(str, command)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    *_, held_out, _ = said.splitlines()  # "…/val.csv: 20.3 % of 300 videos", before what it wrote
    return {"accuracy": float(held_out.rpartition(": ")[2].split()[0])}


def image_weights(output: Path, data: Path, frames: int, epochs: int) -> dict[str, float]:
    """Train the image model and save it."""
    model, accuracy, scale = train_image_model(recipe(output, data, 1), frames, epochs)
    save_file(model.state_dict(), output / "image_vit.safetensors")
    return {"accuracy": accuracy, "scale": scale}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = parser_of(__doc__, "runs/small_budgets", 10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
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
        ("trained", "parameters", "top-1 %", "model's CPU s", "lr",
         "ViT-B: parameters", "GiB", "worked out", "CPU s/step"),
    ]  # fmt: skip
    for i, (name, (rate, options)) in enumerate(WAYS.items()):
        step = kept(out / f"step{i}.json", lambda options=options: measure_step(options))
        more = (*start, *options, "SOLVER.BASE_LR", rate, "TRAIN.EVAL_PERIOD", args.epochs)
        runs = []
        for seed in args.seeds:
            folder, keys = out / f"run{i}-{seed}", (*more, "RNG_SEED", seed)
            make = partial(measure_run, folder, data, args.epochs, keys)
            runs.append(kept(out / f"run{i}-{seed}.json", make))
        accuracy = " ".join(f"{run['accuracy']:.1f}" for run in runs)
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        cells = (f"{runs[0]['trained']:,}", accuracy, f"{seconds:.0f}", f"{rate:g}")
        memory = (f"{step['trained']:,}", f"{step['GiB']:.2f}", f"{step['worked out']:.2f}")
        rows.append((name, *cells, *memory, f"{step['seconds']:.1f}"))
        print(format_table(rows[-1:]), flush=True)
    frozen = out / f"run{[*WAYS].index('head')}-{args.seeds[0]}"
    probe = kept(out / "probe.json", lambda: probed(out, data, frozen))
    rows.append((PROBE, "", f"{probe['accuracy']:.1f}", *[""] * 6))
    steps = args.videos // 32 * args.epochs
    text = (
        f"Synthetic, {args.videos} videos, {steps} steps of 32 clips, seeds "
        f"{', '.join(map(str, args.seeds))}, from an image model of {image['accuracy']:.1f} % of "
        "its 18 classes;\ntop-1 of the 300 validation videos (chance 16.7 %).\nViT-B: a step of "
        f"{CLIPS} clips of 8×224², AdamW, float32: peak memory beyond the libraries', and worked "
        "out.\n\n" + format_table(rows)
    )
    print(text)
    (out / "small_budgets.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
