"""Predicting a folder of videos: `timesformer.predict` against a loop of transformers' pipeline.

python benchmarks/predict.py [--videos FOLDER] [--rounds 3] [--output FILE]

Both load the same folder of weights (ViT-B, divided attention, 8×224², random), look at one clip
of each video in one crop, and run in a process of their own, in turns, with all threads of torch.
Of each round the seconds are those between the first video's answer, which warms up, and the
last one's. Without --videos, files of 10 s, 340×256, are made: noise that moves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from report import environment, find_videos

from timesformer.utils.errors import run_tool
from timesformer.utils.files import write_text
from timesformer.utils.text import format_table

OURS, THEIRS = "timesformer.predict", "transformers pipeline"
RATE = 32


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=Path, help="a folder of videos")
    parser.add_argument("--count", type=int, default=24, help="videos that are made")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--output", type=Path, help="where the table goes, too")
    parser.add_argument("--child", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def make_videos(folder: Path, count: int) -> None:
    """Write videos of 300 frames, 340×256, 30 frames/s."""
    rng = np.random.default_rng(0)
    for number in range(count):
        large = rng.integers(0, 256, (40, 50, 3), np.uint8)
        large = np.asarray(large.repeat(16, 0).repeat(16, 1))
        with av.open(str(folder / f"{number:03}.mp4"), "w") as file:
            stream = file.add_stream("libx264", 30, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for i in range(300):
                image = large[i : i + 256, i : i + 340]
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())


def make_weights(folder: Path) -> None:
    """Write random weights in the layout of transformers."""
    from timesformer.models.create import create_model
    from timesformer.models.weights.bundle import Bundle
    from timesformer.models.weights.save import write_hugging_face

    torch.manual_seed(0)
    model = create_model("timesformer_divST_8x32_224_K400")
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    state = model.model.state_dict()
    bundle = Bundle(state, model.architecture, model.preprocessing, model.class_names)
    write_hugging_face(folder, bundle)


def ours(args: argparse.Namespace, paths: list[str]) -> tuple[float, list[float]]:
    """Predict all; return seconds without the first video, and each one's highest probability."""
    import timesformer

    model = timesformer.load(args.weights).with_views("1x1")
    model.predict(paths[0])
    start = time.perf_counter()
    options = {"workers": args.workers, "batch_size": args.batch_size}
    found = [p.top[0].prob for p in model.stream(paths, **options)]
    return time.perf_counter() - start, found


def theirs(args: argparse.Namespace, paths: list[str]) -> tuple[float, list[float]]:
    """Do the same with transformers."""
    from transformers import AutoImageProcessor, pipeline

    pipe = pipeline("video-classification", str(args.weights), device="cpu")
    # Read by PyAV, as here: its video processor needs torchcodec.
    pipe.image_processor = AutoImageProcessor.from_pretrained(args.weights)
    pipe.video_processor = None
    options = {"frame_sampling_rate": RATE, "num_frames": 8, "top_k": 1}
    pipe(paths[0], **options)
    start = time.perf_counter()
    found = [pipe(path, **options)[0]["score"] for path in paths]
    return time.perf_counter() - start, found


def in_process(kind: str, videos: Path, weights: Path, args: argparse.Namespace) -> dict:
    """Run one contestant in a process of its own."""
    words = ["--child", kind, "--videos", videos, "--weights", weights]
    words += ["--workers", args.workers, "--batch-size", args.batch_size]
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Let both predict the same videos, in turns, and print how fast each was."""
    args = parse_args(argv)
    if args.child:
        paths = [str(path) for path in find_videos(args.videos)]
        seconds, found = (ours if args.child == OURS else theirs)(args, paths)
        print(json.dumps({"seconds": seconds, "videos": len(paths), "found": found}))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights, videos = Path(folder) / "weights", args.videos
        make_weights(weights)
        if videos is None:
            videos = Path(folder) / "videos"
            videos.mkdir()
            make_videos(videos, args.count)
        rounds = [
            {kind: in_process(kind, videos, weights, args) for kind in (OURS, THEIRS)}
            for _ in range(args.rounds)
        ]
    count = rounds[0][OURS]["videos"]
    rate = {k: [count / found[k]["seconds"] for found in rounds] for k in (OURS, THEIRS)}
    ratios = [a / b for a, b in zip(rate[OURS], rate[THEIRS], strict=True)]
    rows = [(k, f"{median(r):.3f}", f"{min(r):.3f}", f"{max(r):.3f}") for k, r in rate.items()]
    rows.append(("ratio", *(f"{f(ratios):.2f}" for f in (median, min, max))))
    pairs = zip(rounds[0][OURS]["found"], rounds[0][THEIRS]["found"], strict=True)
    apart = max(abs(a - b) for a, b in pairs)
    text = f"""{environment()}
{count} videos, {args.rounds} rounds, {args.workers} workers, {args.batch_size} clips in a pass
{format_table([("videos a second", "median", "least", "greatest"), *rows])}
Highest probabilities differ by at most {apart:.1e}.
"""
    print(text, end="")
    if args.output:
        write_text(args.output, text)


if __name__ == "__main__":
    run_tool(main)
