"""Convert weights from any layout that is known to another.

SRC is whatever TIMESFORMER.PRETRAINED_MODEL takes: a file, a folder, timm/NAME or hf/ORG/NAME.
DST is a .pyth file (native), a folder for transformers (hf), a .safetensors file or a folder for
TimeSformer.from_pretrained (safetensors), or a .pth file (mmaction2).

Example:
  timesformer convert TimeSformer_divST_8x32_224_K400.pyth k400 --to hf
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timesformer.datasets.lists.class_names import read_class_names
from timesformer.models.weights.bundle import Bundle, read_bundle
from timesformer.models.weights.save import (
    write_hugging_face,
    write_mmaction2,
    write_native,
    write_safetensors,
)
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.files import is_folder, make_folder, make_place
from timesformer.utils.parser import CommandParser, output_path

FILES = (".pyth", ".pth", ".pt", ".safetensors")
WRITERS: dict[str, Callable[[Path, Bundle], None]] = {
    "native": write_native,
    "hf": write_hugging_face,
    "safetensors": write_safetensors,
    "mmaction2": write_mmaction2,
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("convert", __doc__)
    parser.add_argument("src", metavar="SRC", help="file, folder, timm/NAME or hf/ORG/NAME")
    parser.add_argument("dst", metavar="DST", type=output_path, help="file or folder to write")
    parser.add_argument("--to", required=True, choices=WRITERS, help="layout of DST")
    parser.add_argument("--force", action="store_true", help="replace what is at DST")
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        help="of a run's checkpoint: the weights, or their moving average (those that it was to be "
        "tested with)",
    )
    parser.add_argument(
        "--num-heads", type=int, metavar="N", help="heads, where SRC doesn't say and D/64 is wrong"
    )
    for name, meaning in (("mean", "mean"), ("std", "standard deviation")):
        parser.add_argument(
            f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"),
            help=f"{meaning} of each channel, where SRC doesn't say",
        )  # fmt: skip
    parser.add_argument("--class-names", metavar="FILE",
        help="one name a line, or the name of a shipped list, e.g. kinetics400",
    )  # fmt: skip
    return parser.parse(argv)


def complete(bundle: Bundle, args: argparse.Namespace) -> Bundle:
    """Add what the command line says; what SRC says itself may not be contradicted."""
    if (args.mean is None) != (args.std is None):
        raise ConfigError("--mean and --std belong together")
    if args.num_heads not in (None, bundle.architecture.num_heads):
        raise ConfigError(
            f"{args.src} says itself num_heads {bundle.architecture.num_heads}: leave --num-heads "
            "out"
        )
    if args.mean is not None:
        given = {"mean": args.mean, "std": args.std}
        said = bundle.preprocessing or {"channel_order": "RGB"} | given
        if any(said[key] != value for key, value in given.items()):
            raise ConfigError(
                f"{args.src} says itself mean {said['mean']} and std {said['std']}: leave --mean "
                "and --std out"
            )
        bundle = replace(bundle, preprocessing=said)
    if args.class_names is not None:
        classes = bundle.architecture.num_classes
        names = read_class_names(
            args.class_names, classes, "--class-names", f"the number of classes of {args.src}"
        )
        bundle = replace(bundle, class_names=names)
    return bundle


def make_room(dst: Path, to: str, force: bool) -> None:
    """Make sure that DST can be written, before the weights are read.

    Raises:
        UserError: it can't, or something is there that it would replace.
    """
    is_file = to in ("native", "mmaction2") or dst.suffix == ".safetensors"
    if os.path.exists(dst):  # noqa: PTH110  (Path's raises for a name that is too long)
        if not force:
            raise WeightsError(f"{dst}: is there already; --force replaces it")
        if is_folder(dst) == is_file:
            kind = "a folder" if is_file else "a file"
            raise WeightsError(f"{dst}: is {kind}, and --to {to} writes the other")
    if is_file != (dst.suffix in FILES):
        wanted = f"a file: end its name in {FILES[0]} or {FILES[1]}" if is_file else "a folder"
        raise WeightsError(f"{dst}: --to {to} writes {wanted}")
    if os.path.lexists(dst) and not is_file:
        make_folder(dst)
    else:
        make_place(dst)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and print what was read and written."""
    args = parse(argv)
    make_room(args.dst, args.to, args.force)
    hints = {} if args.num_heads is None else {"num_heads": args.num_heads}
    bundle = complete(read_bundle(args.src, args.weights, **hints), args)
    WRITERS[args.to](args.dst, bundle)
    sizes = ", ".join(f"{name} {value}" for name, value in bundle.architecture.to_json().items())
    parameters = sum(value.numel() for value in bundle.state.values())
    source = bundle.file or args.src
    print(f"read {source}: {len(bundle.state)} tensors, {parameters:,} parameters ({sizes})")
    input_of = bundle.preprocessing
    frames = ", ".join(f"{k} {v}" for k, v in input_of.items()) if input_of else "unknown"
    print(f"preprocessing: {frames}; class names: {len(bundle.class_names) or 'none'}")
    print(f"wrote {args.dst} ({args.to})")
