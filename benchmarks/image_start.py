"""What image weights are worth to a video model, on Synthetic.

python benchmarks/image_start.py [--output DIR]

A small image ViT of timm learns shape and colour from single frames, in which nothing tells how
they move. Then two video models learn the motions with the same recipe: one starts from that image
model, as the paper's do from ImageNet, the other one from scratch. Writes image_vit.safetensors
(timm's layout), image_start.txt and image_start.png (accuracy over steps) to DIR.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from tqdm import tqdm

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.datasets.synthetic_video import SHAPES, Trajectory, render
from timesformer.engine.train import train
from timesformer.utils.errors import run_tool
from timesformer.utils.misc import keyed_rng
from timesformer.utils.table import format_table

RECIPE = Path(__file__).resolve().parents[1] / "configs/Synthetic/TimeSformer_divST_8_64.yaml"
SIDE = 64
COLOURS = 3  # which of red, green and blue is strongest
CLASSES = len(SHAPES) * COLOURS
MEAN, STD = 0.45, 0.225  # of the video recipe
GOAL = 95.0  # % of the validation videos


def draw_frames(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Single frames (count, 3, 64, 64), normalised, and their labels (count,)."""
    images = torch.empty(count, 3, SIDE, SIDE)
    labels = torch.empty(count, dtype=torch.long)
    for i in tqdm(range(count), desc="frames", disable=None):
        rng = keyed_rng(seed, i)
        x, y, radius = rng.uniform(14, 66), rng.uniform(10, 54), np.exp(rng.uniform(1.7, 2.8))
        place = Trajectory(*(np.array([value], np.float32) for value in (x, y, radius)))
        scene = render(rng, place)
        left = int(rng.integers(0, scene.frames.shape[2] - SIDE, endpoint=True))
        pixels = torch.from_numpy(scene.frames[0, :, left : left + SIDE]).permute(2, 0, 1)
        images[i] = (pixels / 255 - MEAN) / STD
        labels[i] = SHAPES.index(scene.shape) * COLOURS + int(scene.colour.argmax())
    return images, labels


def train_image_model(cfg: CfgNode, frames: int, epochs: int) -> tuple[nn.Module, float]:
    """Train an image ViT of the video model's size; returns it and its accuracy in percent."""
    torch.manual_seed(0)
    sizes = cfg.TIMESFORMER
    model = VisionTransformer(
        SIDE,
        sizes.PATCH_SIZE,
        num_classes=CLASSES,
        embed_dim=sizes.EMBED_DIM,
        depth=sizes.DEPTH,
        num_heads=sizes.NUM_HEADS,
    )
    images, labels = draw_frames(frames, seed=1)
    held_out, truth = draw_frames(1000, seed=2)
    batch = 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * (frames // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps, pct_start=0.05)
    for epoch in range(epochs):
        order = torch.randperm(frames).split(batch)[: frames // batch]
        for part in tqdm(order, desc=f"image epoch {epoch + 1}", disable=None):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = (model(held_out).argmax(1) == truth).float().mean()
    return model, 100 * float(right)


def train_video_model(output: Path, data: Path, epochs: int, *options: object) -> list[float]:
    """Train by the recipe; returns the validation accuracy after each epoch, in percent."""
    cfg = recipe(output, data, epochs, *options)
    train(cfg)
    lines = map(json.loads, (output / "stats.jsonl").read_text().splitlines())
    return [line["top1_acc"] for line in lines if line["split"] == "val"]


def recipe(output: Path, data: Path, epochs: int, *options: object) -> CfgNode:
    """The recipe of divided attention on Synthetic, validated after each epoch."""
    cfg = get_cfg()
    cfg.merge_from_file(str(RECIPE))
    common = ["OUTPUT_DIR", str(output), "DATA.PATH_TO_DATA_DIR", str(data)]
    common += ["SOLVER.MAX_EPOCH", epochs, "TRAIN.EVAL_PERIOD", 1, "TRAIN.AUTO_RESUME", False]
    cfg.merge_from_list([*common, "TENSORBOARD.ENABLE", False, *options])
    check(cfg)
    return cfg


def draw(curves: dict[str, list[float]], steps: int) -> Figure:
    """Accuracy over steps."""
    figure = Figure(figsize=(8, 5), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), ("#2f6fbb", "#e08a1e"), strict=False):
        places = [steps * (i + 1) for i in range(len(curve))]
        axes.plot(places, curve, "o-", color=colour, linewidth=2, label=name)
    axes.axhline(GOAL, color="#6e7781", linewidth=1, linestyle=(0, (4, 4)))
    axes.set(xlabel="steps of 32 clips", ylabel="top-1 on the validation videos", ylim=(0, 103))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(color="#d8dee4")
    axes.set_title("Synthetic: starting from an image model", loc="left", weight="bold")
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("runs/image_start"), metavar="DIR")
    parser.add_argument("--frames", type=int, default=20000, metavar="N", help="images (20000)")
    parser.add_argument("--image-epochs", type=int, default=12, metavar="N")
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="of the videos (8)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    cfg = recipe(args.output, args.data, args.epochs, *args.opts)
    model, accuracy = train_image_model(cfg, args.frames, args.image_epochs)
    weights = args.output / "image_vit.safetensors"
    save_file(model.state_dict(), weights)
    print(f"image model: {accuracy:.1f} % of {CLASSES} classes of shape and colour; {weights}")
    start = ("TIMESFORMER.PRETRAINED_MODEL", str(weights), "TIMESFORMER.INIT", "image")
    curves = {
        "from the image model": train_video_model(
            args.output / "from_image", args.data, args.epochs, *args.opts, *start
        ),
        "from scratch": train_video_model(
            args.output / "from_scratch", args.data, args.epochs, *args.opts
        ),
    }
    steps = 3000 // cfg.GLOBAL_BATCH_SIZE
    rows: list[tuple[object, ...]] = [
        ("top-1 after steps", *(steps * (i + 1) for i in range(args.epochs)))
    ]
    rows += [(name, *(f"{x:.1f}" for x in curve)) for name, curve in curves.items()]
    text = f"image model: {accuracy:.1f} % of {CLASSES} classes\n\n{format_table(rows)}"
    print(text)
    (args.output / "image_start.txt").write_text(text + "\n", encoding="utf-8")
    draw(curves, steps).savefig(args.output / "image_start.png")


if __name__ == "__main__":
    run_tool(main)
