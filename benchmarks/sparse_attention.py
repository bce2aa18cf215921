"""Measures what sparse attention saves: time and peak memory of one block, by tokens of a clip.

python benchmarks/sparse_attention.py [--device cuda] [--output FILE]

Schemes take turns in one process, on the same tokens: medians of time, and of the ratio to joint
attention in the same round. Peak memory is what the tensors of a forward pass hold at most, beyond
weights and input: measured with fused attention, and worked out for attention that makes its
matrices ("plain", in float32). On a GPU, where bfloat16 is used, FlexAttention with a block mask is
measured against the regrouped local and global attention too, after a check that both give the
same.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flex_local_global import FlexLocalGlobal
from report import environment
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from timesformer.models.attention import ATTENTION_REGISTRY, SpaceTimeBlock, TokenGrid
from timesformer.models.attention.layers import set_fused_attention
from timesformer.models.profiling import LiveStorages, count_macs
from timesformer.utils.errors import UserError, run_tool
from timesformer.utils.text import format_table

JOINT, LOCAL_GLOBAL = "joint_space_time", "sparse_local_global"
SCHEMES = (JOINT, "divided_space_time", LOCAL_GLOBAL, "axial")
FLEX, FLEX_SORTED = "  FlexAttention", "  FlexAttention, sorted"
SHAPES = ("4x224", "8x224", "16x224", "32x224", "16x448", "96x224")
HEADER = (
    "clip", "tokens", "scheme", "GMAC", "ms", "of joint", "peak MiB", "of joint", "plain MiB",
    "of joint",
)  # fmt: skip
PATCH = 16
TOLERANCE = 1e-3  # float32; both sum the same products in another order

Contestants = Mapping[str, Callable[[Tensor, TokenGrid], Tensor]]


class Shape(NamedTuple):
    """Frames and side of a clip, and where its patches lie."""

    name: str
    grid: TokenGrid

    @property
    def tokens(self) -> int:
        """Patches of a clip."""
        return self.grid.frames * self.grid.height * self.grid.width


class Size(NamedTuple):
    """Multiply-adds, and peak bytes of a forward pass on the plain path in float32."""

    macs: int
    plain_bytes: int


class Result(NamedTuple):
    """Median seconds, median ratio to joint attention, and peak bytes of a forward pass."""

    seconds: float
    ratio: float
    peak_bytes: int


class OnTokens(nn.Module):
    """A block on a fixed grid, as `count_macs` wants it: a module of one tensor."""

    def __init__(self, block: SpaceTimeBlock, grid: TokenGrid) -> None:
        super().__init__()
        self.block, self.grid = block, grid

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1 + N·T, D) -> the same."""
        return self.block(x, self.grid)


class PeakStorages(LiveStorages):
    """Knows the most bytes that were alive at once."""

    peak_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.peak_bytes = max(self.peak_bytes, self.total_bytes())
        return out


def read_shape(text: str) -> Shape:
    """Read FRAMESxSIDE, e.g. 8x224.

    Raises:
        UserError: it is something else, or the side isn't a multiple of a patch's.
    """
    try:
        frames, side = (int(part) for part in text.split("x"))
    except ValueError:
        raise UserError(f"--shapes {text}: write frames x side in pixels, e.g. 8x224") from None
    if frames < 2 or side < 2 * PATCH or side % PATCH:
        raise UserError(
            f"--shapes {text}: takes two frames or more, of a side of {2 * PATCH}, {3 * PATCH}, …"
        )
    return Shape(text, TokenGrid(1, frames, side // PATCH, side // PATCH))


def make_block(scheme: str, width: int, heads: int) -> SpaceTimeBlock:
    """Make a block with the same weights each time."""
    torch.manual_seed(0)
    return ATTENTION_REGISTRY.get(scheme)(width, heads, qkv_bias=True).eval()


def add_flex(contestants: dict[str, Any], x: Tensor, shape: Shape) -> None:
    """Add FlexAttention, after comparing it with the regrouped path in float32.

    Raises:
        RuntimeError: they differ.
    """
    regrouped = contestants[LOCAL_GLOBAL]
    for name, ordered in ((FLEX, False), (FLEX_SORTED, True)):
        torch.compiler.reset()  # each mask and size is compiled anew, and there is a limit
        kernel = torch.compile(flex_attention, dynamic=False)
        flex = FlexLocalGlobal(regrouped, shape.grid, x.device, ordered, kernel)
        difference = (flex(x, shape.grid) - regrouped(x, shape.grid)).abs().max().item()
        empty = ", ".join(f"{step[0].sparsity():.0f} %" for step in flex.steps)
        print(f"{shape.name}{name}: differs by {difference:.1e}; empty blocks {empty}", flush=True)
        if difference > TOLERANCE:
            raise RuntimeError(f"{shape.name}{name} differs from the regrouped path")
        contestants[name] = flex
    torch.compiler.reset()


def size_up(scheme: str, shape: Shape, width: int, heads: int) -> Size:
    """Work out, without computing anything, what a block costs."""
    module = OnTokens(make_block(scheme, width, heads).to("meta"), shape.grid)
    macs = count_macs(module, (1 + shape.tokens, width))
    set_fused_attention(module, False)
    x = torch.empty(1, 1 + shape.tokens, width, device="meta")
    return Size(macs, peak_bytes(module.block, x, shape.grid))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(contestants: Contestants, x: Tensor, grid: TokenGrid, rounds: int) -> dict[str, Result]:
    """Run all in turn, `rounds` times after one to warm up; joint attention comes first."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            wait_for(x.device)
            start = time.perf_counter()
            run(x, grid)
            wait_for(x.device)
            seconds[name].append(time.perf_counter() - start)
    results = {}
    for name, run in contestants.items():
        ratios = [s / j for s, j in zip(seconds[name][1:], seconds[JOINT][1:], strict=True)]
        peak = peak_bytes(run, x, grid)
        median = statistics.median
        results[name] = Result(median(seconds[name][1:]), median(ratios), peak)
    return results


def peak_bytes(run: Callable[[Tensor, TokenGrid], Tensor], x: Tensor, grid: TokenGrid) -> int:
    """Most bytes that a forward pass holds beyond weights and input."""
    if x.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        run(x, grid)
        return torch.cuda.max_memory_allocated(x.device) - before
    with PeakStorages() as storages:
        run(x, grid)
    return storages.peak_bytes


def crossing(points: Sequence[tuple[int, float]]) -> str:
    """Say from how many tokens on a ratio stays below 1, between neighbours on a log-log line."""
    points = sorted(points)
    if points[-1][1] >= 1:
        return "not below joint at the longest clip measured"
    above = [i for i, (_, ratio) in enumerate(points) if ratio >= 1]
    if not above:
        return f"below joint from the shortest clip measured on ({points[0][0]} tokens)"
    (n0, r0), (n1, r1) = points[above[-1]], points[above[-1] + 1]
    share = math.log(r0) / (math.log(r0) - math.log(r1))
    return f"below joint from about {round(n0 * (n1 / n0) ** share, -2):.0f} tokens on"


def cells(name: str, sizes: Mapping[str, Size], results: Mapping[str, Result]) -> list[str]:
    """Figures of a row, from GMAC on; what isn't known of FlexAttention stays empty."""
    result, joint = results[name], results[JOINT]
    row = ["", f"{result.seconds * 1e3:.1f}", f"{result.ratio:.2f}"]
    row += [f"{result.peak_bytes / 2**20:.0f}", f"{result.peak_bytes / joint.peak_bytes:.2f}"]
    if name not in sizes:
        return [*row, "", ""]
    row[0] = f"{sizes[name].macs / 1e9:.1f}"
    plain, of_joint = sizes[name].plain_bytes, sizes[name].plain_bytes / sizes[JOINT].plain_bytes
    return [*row, f"{plain / 2**20:.0f}", f"{of_joint:.2f}"]


@torch.no_grad()
def compare(
    shapes: Sequence[Shape], width: int, heads: int, rounds: int, device: torch.device
) -> str:
    """Return the table of all shapes and the crossing points."""
    rows: list[tuple[object, ...]] = [HEADER]
    ratios: dict[str, list[tuple[int, float]]] = {}
    for shape in sorted(shapes, key=lambda shape: shape.tokens):
        blocks: dict[str, Any] = {
            name: make_block(name, width, heads).to(device) for name in SCHEMES
        }
        sizes = {name: size_up(name, shape, width, heads) for name in SCHEMES}
        x = torch.randn(1, 1 + shape.tokens, width, device=device)
        if device.type == "cuda":
            add_flex(blocks, x, shape)
            x = x.bfloat16()
            for name in SCHEMES:
                blocks[name].bfloat16()
        results = measure(blocks, x, shape.grid, rounds)
        for name, result in results.items():
            rows.append((shape.name, shape.tokens, name, *cells(name, sizes, results)))
            ratios.setdefault(name, []).append((shape.tokens, result.ratio))
        print(format_table([HEADER, *rows[-len(results) :]]), flush=True)
    lines = [f"{name.strip()}: {crossing(points)}" for name, points in ratios.items()][1:]
    return "\n".join([format_table(rows), "", "Time of a block, forward:", *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="FRAMESxSIDE")
    parser.add_argument("--width", type=int, default=768, metavar="D", help="of the block (768)")
    parser.add_argument("--heads", type=int, default=12, metavar="A", help="of the block (12)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured turns (5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there too")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: no CUDA device here")
    shapes = [read_shape(text) for text in args.shapes]
    table = compare(shapes, args.width, args.heads, args.rounds, device)
    where = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    title = (
        f"A block of width {args.width} with {args.heads} heads, one clip at a time, on {device}"
    )
    text = "\n".join([environment(), *where, "", title, "", table])
    print("\n" + text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
