"""What image weights are worth to a video model, on Synthetic.

python benchmarks/image_start.py [--output DIR]

A small image ViT of timm learns shape and colour from single frames, in which nothing tells how
they move. Then video models learn the motions with the same recipe, on a third of the videos: from
that image model, as the paper's do from ImageNet, with time_embed starting at zero (published) or
as sines; and from scratch. Writes image_vit.safetensors (timm's layout), image_start.txt and
image_start.png (accuracy over steps) to DIR.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from tqdm import tqdm

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.engine.train import train
from timesformer.prepare.synthetic_video import SHAPES, Trajectory, render
from timesformer.utils.errors import run_tool
from timesformer.utils.rng import keyed_rng
from timesformer.utils.text import format_table
from timesformer.visualization.style import blank_figure

RECIPE = Path(__file__).resolve().parents[1] / "configs/Synthetic/TimeSformer_divST_8_64.yaml"
SIDE = 64
COLOURS = 3  # which of red, green and blue is strongest
CLASSES = len(SHAPES) * COLOURS
MEAN, STD = 0.45, 0.225  # of the video recipe
GOAL = 95.0  # % of the validation videos
TIME_OVER_PATCHES = 2.0  # amplitude of time_embed over the std of patch tokens


def draw_frames(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Single frames (count, 3, 64, 64), normalised, and their labels (count,)."""
    images = torch.empty(count, 3, SIDE, SIDE)
    labels = torch.empty(count, dtype=torch.long)
    for i in tqdm(range(count), desc="frames", disable=None):
        rng = keyed_rng("frame", seed, i)
        x, y, radius = rng.uniform(14, 66), rng.uniform(10, 54), np.exp(rng.uniform(1.7, 2.8))
        place = Trajectory(*(np.array([value], np.float32) for value in (x, y, radius)))
        scene = render(rng, place)
        left = int(rng.integers(0, scene.frames.shape[2] - SIDE, endpoint=True))
        pixels = torch.from_numpy(scene.frames[0, :, left : left + SIDE]).permute(2, 0, 1)
        images[i] = (pixels / 255 - MEAN) / STD
        labels[i] = SHAPES.index(scene.shape) * COLOURS + int(scene.colour.argmax())
    return images, labels


def train_image_model(cfg: CfgNode, frames: int, epochs: int) -> tuple[nn.Module, float, float]:
    """Train an image ViT of the video model's size.

    Returns:
        The model, its accuracy in percent, and the standard deviation of its patch tokens.
    """
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
    for module in model.modules():  # timm's .02 is too small for so narrow a network
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
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
        scale = model.patch_embed(held_out).std()
    return model, 100 * float(right), float(scale)


def train_video_model(output: Path, data: Path, epochs: int, *options: object) -> list[float]:
    """Train by the recipe; returns the validation accuracy after each epoch, in percent."""
    cfg = recipe(output, data, epochs, *options)
    train(cfg)
    lines = map(json.loads, (output / "stats.jsonl").read_text().splitlines())
    return [line["top1_acc"] for line in lines if line["split"] == "val"]


def recipe(output: Path, data: Path, epochs: int, *options: object) -> CfgNode:
    """Return the recipe of divided attention on Synthetic, validated after each epoch."""
    cfg = get_cfg()
    cfg.merge_from_file(str(RECIPE))
    common = ["OUTPUT_DIR", str(output), "DATA.PATH_TO_DATA_DIR", str(data)]
    common += ["SOLVER.MAX_EPOCH", epochs, "TRAIN.EVAL_PERIOD", 1, "TRAIN.AUTO_RESUME", False]
    cfg.merge_from_list([*common, "TENSORBOARD.ENABLE", False, *options])
    check(cfg)
    return cfg


def take_videos(data: Path, folder: Path, count: int) -> Path:
    """Make a folder of the same data set with the first `count` training videos only."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in data.resolve().iterdir():
        link = folder / path.name
        if path.name != "train.csv" and not link.exists():
            link.symlink_to(path)
    rows = (data / "train.csv").read_text(encoding="utf-8").splitlines()[:count]
    (folder / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def first_steps(curves: dict[str, list[float]], steps: int) -> str:
    """When each run was first at the goal."""
    lines = []
    for name, curve in curves.items():
        reached = next((steps * (i + 1) for i, x in enumerate(curve) if x >= GOAL), None)
        when = f"after {reached} steps" if reached else f"not within {steps * len(curve)} steps"
        lines.append(f"{GOAL:.0f} % {when}: {name}")
    return "\n".join(lines)


def draw(curves: dict[str, list[float]], steps: int) -> Figure:
    """Accuracy over steps."""
    figure = blank_figure(8, 5)
    axes = figure.subplots()
    for (name, curve), colour in zip(
        curves.items(), ("#2f6fbb", "#2e9a6a", "#e08a1e"), strict=False
    ):
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


def parser_of(description: str | None, output: str, epochs: int) -> argparse.ArgumentParser:
    """Return a parser of what is trained on, for how long, and into which folder."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path(output), metavar="DIR")
    parser.add_argument("--frames", type=int, default=20000, metavar="N", help="images (20000)")
    parser.add_argument("--image-epochs", type=int, default=12, metavar="N")
    parser.add_argument("--videos", type=int, default=1000, metavar="N", help="to train on (1000)")
    parser.add_argument(
        "--epochs", type=int, default=epochs, metavar="N", help=f"of the videos ({epochs})"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = parser_of(__doc__, "runs/image_start", 20)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    data = take_videos(args.data, args.output / "data", args.videos)
    cfg = recipe(args.output, data, args.epochs, *args.opts)
    model, accuracy, scale = train_image_model(cfg, args.frames, args.image_epochs)
    weights = args.output / "image_vit.safetensors"
    save_file(model.state_dict(), weights)
    said = f"image model: {accuracy:.1f} % of {CLASSES} classes of shape and colour"
    print(f"{said}; std of its patch tokens {scale:.2f}; {weights}")
    image = ("TIMESFORMER.PRETRAINED_MODEL", str(weights), "TIMESFORMER.INIT", "image")
    amplitude = ("TIMESFORMER.TIME_EMBED_AMPLITUDE", round(TIME_OVER_PATCHES * scale, 2))
    starts: dict[str, tuple[object, ...]] = {
        f"image weights, time_embed of amplitude {amplitude[1]}": (*image, *amplitude),
        "image weights, time_embed 0 (published)": image,
        "from scratch": (),
    }
    curves = {
        name: train_video_model(args.output / f"start{i}", data, args.epochs, *args.opts, *options)
        for i, (name, options) in enumerate(starts.items())
    }
    steps = args.videos // cfg.GLOBAL_BATCH_SIZE
    rows: list[tuple[object, ...]] = [
        ("top-1 after steps", *(steps * (i + 1) for i in range(args.epochs)))
    ]
    rows += [(name, *(f"{x:.1f}" for x in curve)) for name, curve in curves.items()]
    text = f"{said}\n\n{format_table(rows)}\n\n{first_steps(curves, steps)}"
    print(text)
    (args.output / "image_start.txt").write_text(text + "\n", encoding="utf-8")
    draw(curves, steps).savefig(args.output / "image_start.png")


if __name__ == "__main__":
    run_tool(main)
