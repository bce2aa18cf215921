"""Every registered model, and every scheme, as an exported file: how far its logits are apart.

python benchmarks/export.py [--only WORD ...] [--to FORMAT ...] [--output FILE]

Weights are noise, scaled so that the largest logit is about 10, and clips are small: what is looked
at is whether each step of a model is expressed right, for 1, 3 and 8 clips of noise. Exporting is
that of `timesformer export`, which refuses a file that is more than 1e-4 apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from report import environment
from torch import nn

from timesformer.inference import measure
from timesformer.inference.export import export
from timesformer.inference.formats import FORMATS
from timesformer.inference.predictor import Predictor
from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.build import MODEL_REGISTRY
from timesformer.models.create import create_model
from timesformer.utils.errors import UserError, run_tool
from timesformer.utils.files import write_text
from timesformer.utils.text import format_table

CLASSES, LARGEST = 7, 10.0
TINY = "vit_tiny_patch16_224"
SIZES: dict[str, dict[str, Any]] = {
    name: {"num_frames": frames}
    for name, frames in (("mvit_v1_b", 16), ("mvit_v2_s", 16), ("slowfast_r50", 32), ("x3d_m", 16))
}
VARIANTS: dict[str, dict[str, Any]] = {
    "tubelets, CLS in time": {"tubelet_size": 2, "cls_in_time": True},
    "centred window": {"attention_type": "sparse_local_global", "local_window": "centred"},
}


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name of each row, with its model and what is changed of it."""
    found = {f"{TINY}: {name}": (TINY, {"attention_type": name}) for name, _ in ATTENTION_REGISTRY}
    found |= {f"{TINY}: {name}": (TINY, changes) for name, changes in VARIANTS.items()}
    names = [name for name, _ in MODEL_REGISTRY if name not in (TINY, "TimeSformer")]  # as below
    return found | {name: (name, SIZES.get(name, {})) for name in names}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows that have one of these")
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=[*FORMATS])
    parser.add_argument("--output", type=Path, help="where the table goes, too")
    return parser.parse_args(argv)


@torch.no_grad()
def noisy(name: str, changes: dict[str, Any]) -> nn.Module:
    """Make a model of noise that knows how its clips are made: (8 or more, 64, 64)."""
    torch.manual_seed(0)
    built = {"num_frames": 8, "img_size": 64, "num_classes": CLASSES} | changes
    model: Any = create_model(name, **built).eval()
    for key, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.add_(torch.randn_like(value), alpha=0.1)
    model.preprocessing = {
        "mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB", "sampling": "rate",
        "num_frames": built["num_frames"], "sampling_rate": 2, "crop_size": 64, "short_side": 64,
    }  # fmt: skip
    logits = model(torch.randn(2, 3, built["num_frames"], 64, 64))
    for value in model.get_classifier().parameters():
        value.mul_(LARGEST / logits.abs().max())
    return model


def tried(model: nn.Module, to: str, source: str) -> tuple[str, str, str]:
    """Export; return the largest difference, the megabytes, and why it can't be, or ""."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / f"model{FORMATS[to].suffix}"
        try:
            done = export(Predictor(model), path, to, source=source)
        except UserError as error:
            return "-", "-", str(error)
        except ModuleNotFoundError as error:
            return "-", "-", f"{error.name} isn't installed"
    return f"{max(done.differences.values()):.0e}", f"{done.size / 1e6:.1f}", ""


def versions(formats: Sequence[str]) -> str:
    """Name the versions of what computes."""
    return ", ".join(
        f"{package} {version(package)}" for to in formats for package in FORMATS[to].packages
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Export all, and print a table."""
    args, start = parse_args(argv), time.perf_counter()
    measure.ROUNDS = 1  # how fast they are isn't asked here
    more = [text for to in args.to for text in (to, "MB")]
    rows, refused = [["model", "weights, M", "clip", *more]], []
    for row, (name, changes) in cases().items():
        if args.only and not any(word in row for word in args.only):
            continue
        model: Any = noisy(name, changes)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        cells = [row, f"{count:.1f}", f"{model.preprocessing['num_frames']}x64x64"]
        for to in args.to:
            apart, size, why = tried(model, to, row)
            cells += [apart, size]
            refused += [f"{row}, {to}: {why}"] * bool(why)
        rows.append(cells)
        print(*cells, f"({time.perf_counter() - start:.0f} s)", flush=True)
    said = [
        environment(),
        versions(args.to),
        f"Largest difference of a logit from PyTorch's, of 1, 3 and 8 clips of noise; the largest "
        f"logit is about {LARGEST:g}",
        format_table(rows),
        *refused,
    ]
    text = "\n".join(said) + "\n"
    print(text)
    if args.output is not None:
        write_text(args.output, text)


if __name__ == "__main__":
    run_tool(main)
