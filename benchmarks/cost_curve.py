"""How time and memory grow with the tokens of a clip, for each scheme.

python benchmarks/cost_curve.py [--output benchmarks/results/cost_curve_cpu.txt]
                                [--plot docs/images/cost_curve.png] [--depth 1] [--what forward]

Frames from 8 to 96 of 224², and 8 frames from 224² to 448². A model of one block of ViT-B's width
is enough for that: twelve take twelve times as long, for a few percent that patches and head take.
It is computed whole, though of a last block nothing but CLS is read.
An exponent is the slope of a straight line through the points in logarithms: time grows as
tokens^exponent. Those of multiply-adds are counted, the others measured.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from model_parts import entrants
from model_parts.entrants import MAKERS, SIZES, Setting
from model_parts.table import CLOCKS
from model_parts.turns import take_turns
from report import environment

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.build import meta_model
from timesformer.models.profiling import count_macs
from timesformer.utils.errors import run_tool
from timesformer.utils.files import write_text
from timesformer.utils.parser import png_path
from timesformer.utils.text import counted, format_table

FRAMES = (8, 16, 32, 64, 96)
SIDES = (224, 288, 336, 384, 448)
PATCH = 16


class Point(NamedTuple):
    """What a scheme takes for clips of a shape.

    Attributes:
        frames: of a clip.
        side: in pixels.
        seconds: of a pass.
        peak: bytes that it holds beside the weights.
        macs: multiply-adds of a forward pass.
        note: why the first two are missing.
    """

    frames: int
    side: int
    seconds: float
    peak: float
    macs: int
    note: str = ""

    @property
    def tokens(self) -> int:
        """Patches of a clip."""
        return self.frames * (self.side // PATCH) ** 2


Curves = Mapping[str, Sequence[Point]]


def exponent(tokens: Sequence[float], values: Sequence[float]) -> float:
    """Return p of values ≈ c·tokens^p, by least squares in logarithms; NaN of less than two."""
    known = [(x, y) for x, y in zip(tokens, values, strict=True) if y > 0]
    if len(known) < 2:
        return float("nan")
    x, y = np.log(np.array(known)).T
    return float(np.polyfit(x, y, 1)[0])


def measure(frames: int, side: int, args: argparse.Namespace) -> dict[str, Point]:
    """Measure all schemes on clips of a shape, in turns."""
    device = args.device
    contestants, macs = {}, {}
    for scheme in args.schemes:
        keys = ("TIMESFORMER.DEPTH", str(args.depth))
        setting = Setting(args.what, scheme, frames, side, args.precision, 1, args.model, keys)
        cfg = setting.cfg(device)
        model: Any = entrants.make_ours(cfg)
        model.model.blocks[-1].register_forward_hook(lambda *_: None)  # it isn't the last of twelve
        contestants[scheme] = MAKERS[args.what](model, setting, device)
        macs[scheme] = count_macs(meta_model(cfg), setting.clip)
    found = take_turns(contestants, device, args.rounds, args.turn, warm_up=1)
    nan = float("nan")
    threads = torch.get_num_threads() if args.clock == "cpu" else 1
    return {
        scheme: Point(
            frames,
            side,
            float(np.median(m.times(args.clock))) / threads if m.seconds else nan,
            nan if m.peak is None else m.peak,
            macs[scheme],
            m.note,
        )
        for scheme, m in found.items()
    }


def axes_of(points: Sequence[Point], side: int, frames: int) -> dict[str, list[Point]]:
    """Return the points along frames, at the least side, and along sides, at the least frames."""
    return {
        "frames": [p for p in points if p.side == side],
        "side": [p for p in points if p.frames == frames],
    }


def tables(curves: Curves, args: argparse.Namespace) -> str:
    """Return seconds, memory and exponents as text."""
    parts = []
    for title, of in (
        ("seconds", lambda p: p.note or f"{p.seconds:.4g}"),
        ("GiB beside the weights", lambda p: p.note or f"{p.peak / 2**30:.3f}"),
        ("10⁹ multiply-adds", lambda p: f"{p.macs / 1e9:.4g}"),
    ):
        rows = [("clip", "tokens", *curves)]
        for same in zip(*curves.values(), strict=True):
            point = same[0]
            shape = f"{point.frames}x{point.side}"
            rows.append((shape, f"{point.tokens:,}", *(of(p) for p in same)))
        parts.append(f"{title}\n{format_table(rows)}")
    header = ("scheme", "time, frames", "side", "memory, frames", "side", "counted, frames", "side")
    rows = [header]
    for scheme, points in curves.items():
        parted = axes_of(points, min(args.sides), min(args.frames)).values()
        cells = [
            f"{exponent([p.tokens for p in axis], [getattr(p, what) for p in axis]):.2f}"
            for what in ("seconds", "peak", "macs")
            for axis in parted
        ]
        rows.append((scheme, *cells))
    parts.append(f"exponents\n{format_table(rows)}")
    return "\n\n".join(parts)


def draw(curves: Curves, args: argparse.Namespace, path: Path) -> None:
    """Draw seconds and memory over tokens, in logarithms."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    from timesformer.visualization.style import GRID, blank_figure, class_colours, write_png

    figure = blank_figure(9.6, 7.4)
    panels = figure.subplots(2, 2, sharey="row")
    colours = dict(zip(curves, class_colours(len(curves)), strict=True))
    measured = (("seconds", "seconds of a pass", 1.0), ("peak", "GiB beside the weights", 2.0**30))
    for row, (what, label, unit) in zip(panels, measured, strict=True):
        for panel, axis in zip(row, ("frames", "side"), strict=True):
            for scheme, points in curves.items():
                line = axes_of(points, min(args.sides), min(args.frames))[axis]
                x, y = [p.tokens for p in line], [getattr(p, what) / unit for p in line]
                panel.loglog(
                    x, y, marker="o", markersize=3.5, linewidth=1.3, color=colours[scheme],
                    label=f"{scheme}: {exponent(x, y):.2f}",
                )  # fmt: skip
            shapes = [f"{p.frames} × {p.side}²\n{p.tokens:,}" for p in line]
            panel.set_xticks([p.tokens for p in line], shapes, fontsize=7)
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.grid(color=GRID, linewidth=0.6)
            panel.tick_params(labelsize=7)
            panel.legend(fontsize=7, frameon=False, title="exponent", title_fontsize=7)
        row[0].set_ylabel(label, fontsize=9)
    panels[0][0].set_title(f"more frames, {min(args.sides)}²", fontsize=10)
    panels[0][1].set_title(f"larger frames, {min(args.frames)} of them", fontsize=10)
    for panel in panels[1]:
        panel.set_xlabel("clip, and its tokens", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, figure)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    schemes = sorted(name for name, _ in ATTENTION_REGISTRY)
    add = parser.add_argument
    add("--what", choices=[*MAKERS], default="forward")
    add("--schemes", nargs="+", choices=schemes, default=schemes)
    add("--frames", nargs="+", type=int, default=[*FRAMES])
    add("--sides", nargs="+", type=int, default=[*SIDES])
    add("--depth", type=int, default=1, help="blocks (1)")
    add("--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32")
    add("--model", choices=[*SIZES], default="base")
    add("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--rounds", type=int, default=7)
    add("--clock", choices=[*CLOCKS], default="wall", help="cpu where others use the machine")
    add("--output", type=Path, help="where the tables go, too")
    add("--plot", type=png_path, metavar="PNG")
    args = parser.parse_args(argv)
    args.words = sys.argv[1:] if argv is None else argv
    args.turn = 0.15 if args.device.type == "cuda" else 0.0
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all shapes, say what was found, and draw it."""
    args = parse_args(argv)
    low = min(args.frames), min(args.sides)
    shapes = [
        (f, s) for f, s in itertools.product(args.frames, args.sides) if f == low[0] or s == low[1]
    ]
    curves: dict[str, list[Point]] = {scheme: [] for scheme in args.schemes}
    for frames, side in sorted(shapes, key=lambda s: (s[0] * s[1] ** 2, s)):
        for scheme, point in measure(frames, side, args).items():
            curves[scheme].append(point)
        print(f"{frames}x{side}: done", file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name() if args.device.type == "cuda" else "CPU"
    text = f"""python benchmarks/cost_curve.py {" ".join(args.words)}
{environment()}
{name}; {args.what} of one clip, {args.precision}; {args.model}, {counted(args.depth, "block")}
Medians of {args.rounds} rounds, in which all schemes took turns.
{CLOCKS[args.clock]}

{tables(curves, args)}
"""
    print(text, end="")
    if args.output:
        write_text(args.output, text)
    if args.plot:
        draw(curves, args, args.plot)


if __name__ == "__main__":
    run_tool(main)
