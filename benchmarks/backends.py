"""Forward passes on the CPU: transformers, torch, and every backend, in float32, bf16 and int8.

python benchmarks/backends.py [--work FOLDER] [--videos FOLDER] [--rounds 7] [--output FILE]

All compute the same clip of a video in one process, in turns, from the same weights (ViT-B, divided
attention, 8×224², random; --checkpoint takes others, then without transformers). Before that their
logits are held against torch's, on clips of videos that int8 wasn't calibrated on. Peak memory is
that of a process of its own, which loads one of them and computes a clip (on Linux). What is made
goes to --work, and is taken from there in another run. What isn't installed is left out, and named.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from predict import make_videos, make_weights
from report import environment, find_videos, peak_memory
from torch import Tensor

import timesformer
from timesformer.clips.transform import Normalize
from timesformer.datasets.decoder import load_clip
from timesformer.inference.backends import KINDS, TORCH
from timesformer.inference.export import checked
from timesformer.inference.given import records_of
from timesformer.inference.measure import timed
from timesformer.inference.predictor import Predictor
from timesformer.models.weights.bundle import read_bundle
from timesformer.utils.errors import run_tool
from timesformer.utils.files import write_text
from timesformer.utils.text import format_table

THEIRS, BF16, INT8 = "transformers", "torch, bf16", ", int8"
CALIBRATED = f"{INT8}, calibrated"
CLIP = "clip.pt"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Score = Callable[[Tensor], Tensor]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, help="where files that are made are kept")
    parser.add_argument("--checkpoint", type=Path, help="other weights")
    parser.add_argument("--videos", type=Path, help="a folder of videos")
    parser.add_argument("--count", type=int, default=16, metavar="N",
                        help="that are taken, half of them to calibrate int8 (16)")  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows that have one of these")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="cpu: the process's, for one thread on a busy machine")  # fmt: skip
    parser.add_argument("--output", type=Path, help="where the table goes, too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def names(args: argparse.Namespace) -> dict[str, str]:
    """Return the rows, each with why it can't be had, or ""."""
    found = {THEIRS: "" if find_spec("transformers") else "transformers isn't installed"}
    if args.checkpoint:
        del found[THEIRS]
    found |= {TORCH: "", BF16: ""}
    for name, kind in KINDS.items():
        found[name] = kind.missing()
        if kind.for_int8 is not None:
            lacking = [package for package in kind.for_int8 if not find_spec(package)]
            ways = (INT8, CALIBRATED) if kind.calibrates else (INT8,)
            why = found[name] or " ".join(f"{p} isn't installed" for p in lacking)
            found |= {name + way: why for way in ways}
    asked = args.only or [""]
    return {n: why for n, why in found.items() if n == TORCH or any(w in n for w in asked)}


def scorer(name: str, weights: Path, work: Path, videos: Sequence[str]) -> Score:
    """Return what maps pixels (B, 3, T, H, W) to logits (B, K); its file is made if need be."""
    if name == THEIRS:
        return theirs(weights)
    if name == BF16:
        return timesformer.load(weights, device="cpu", amp="bf16").score
    if INT8 not in name:
        return timesformer.load(weights, device="cpu", backend=name, tell=print).score
    kind = KINDS[name.partition(INT8)[0]]
    way = "int8-calibrated" if name.endswith(CALIBRATED) else "int8"
    path = work / f"{way}{kind.suffix}"
    if not path.exists():
        given = records_of(videos) if name.endswith(CALIBRATED) else None
        model = timesformer.load(weights, device="cpu")
        with checked(
            model, path, kind, precision="int8", source=weights.name, calibrate=given, batches=(1,)
        ):
            pass
    return timesformer.load(path).score


def theirs(weights: Path) -> Score:
    """Return transformers' model, eager, on clips that are normalised as ours."""
    from transformers import TimesformerForVideoClassification

    model: Any = TimesformerForVideoClassification.from_pretrained(weights).eval()
    said = read_bundle(weights).preprocessing
    assert said is not None
    normalize = Normalize(said["mean"], said["std"], said.get("channel_order") == "BGR")

    def score(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(normalize(pixels).transpose(1, 2)).logits
        return logits

    return score


def clips_of(model: Predictor, videos: Sequence[str]) -> list[Tensor]:
    """Return the middle clip of each video, its centre crop: (1, 3, T, H, W)."""
    return [model.model.crop(load_clip(path, **model.model.sampling)) for path in videos]


@contextmanager
def place(args: argparse.Namespace) -> Iterator[tuple[Path, Path, list[str]]]:
    """Give a folder with weights and videos, which are made if they aren't there."""
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        weights, videos = args.checkpoint or work / "weights", args.videos or work / "videos"
        if not weights.exists():
            make_weights(weights)
        if not videos.exists():
            videos.mkdir()
            make_videos(videos, args.count)
        os.environ["TIMESFORMER_CACHE"] = str(work / "cache")
        yield work, weights, [str(path) for path in find_videos(videos)][: args.count]


def child(args: argparse.Namespace, name: str) -> float:
    """Return the peak memory, in GB, of a process that computes one clip by what is made."""
    words = ["--child", name]
    for option in ("work", "checkpoint", "videos", "count"):
        value = getattr(args, option)
        words += [f"--{option}", str(value)] * (value is not None)
    done = subprocess.run(
        [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.splitlines()[-1])


def measured(args: argparse.Namespace) -> str:
    """Compare and time all; return the report."""
    left_out = {name: why for name, why in names(args).items() if why}
    rows, seconds = {}, {}
    with place(args) as (work, weights, videos):
        args.work = work
        shown, calibrating = videos[::2], videos[1::2]
        clips = clips_of(timesformer.load(weights, device="cpu"), shown)
        for name in names(args):
            if name not in left_out:
                start = time.perf_counter()
                rows[name] = scorer(name, weights, work, calibrating)
                seconds[name] = time.perf_counter() - start
        torch.save(clips[0], work / CLIP)
        logits = {name: torch.cat([score(clip) for clip in clips]) for name, score in rows.items()}
        took = timed([*rows.values()], clips[0], args.rounds, math.inf, CLOCKS[args.clock])
        memory = {name: child(args, name) for name in rows}
    times = dict(zip(rows, took, strict=True))
    base = median(times[THEIRS if THEIRS in times else TORCH])
    cells = [("", "ms", "least", "times", "apart", "cosine", "same class", "peak GB")]
    for name, ms in times.items():
        ours, apart = logits[name], (logits[name] - logits[TORCH]).abs().max()
        cosine = torch.cosine_similarity(ours.double(), logits[TORCH].double()).min()
        same = (ours.argmax(1) == logits[TORCH].argmax(1)).sum()
        cells.append(
            (name, f"{median(ms):.1f}", f"{min(ms):.1f}", f"{base / median(ms):.2f}",
             f"{apart:.1e}", f"{cosine:.5f}", f"{same} of {len(ours)}", f"{memory[name]:.2f}")
        )  # fmt: skip
    packages = ("onnxruntime", "openvino", "nncf", "transformers")
    there = ", ".join(f"{p} {version(p)}" for p in packages if find_spec(p))
    said = [
        environment(),
        there,
        f"One clip {tuple(clips[0].shape[1:])}; milliseconds ({args.clock} clock): median and "
        f"least of {len(took[0])} passes, in turns; times: the first row's median over this one's",
        f"apart, cosine (the lowest), same class: of logits, beside torch's, on {len(clips)} clips "
        f"of other videos than int8 was calibrated on; the largest logit is "
        f"{logits[TORCH].abs().max():.3g}",
        format_table(cells),
        *(f"{name}: left out: {why}" for name, why in left_out.items()),
    ]
    return "\n".join(said) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Compare and time all, and print a table; or be a child."""
    args = parse_args(argv)
    if args.child:
        with place(args) as (work, weights, videos):
            scorer(args.child, weights, work, videos)(torch.load(work / CLIP))
        print(peak_memory() / 1e9)
        return
    text = measured(args)
    print(text, end="")
    if args.output:
        write_text(args.output, text)


if __name__ == "__main__":
    run_tool(main)
