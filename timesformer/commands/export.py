r"""Export a model to a file that runs without PyTorch, or without this package.

The file takes any number of clips of the frames and size of the model's test, and says in itself
how they are made: preprocessing, class names, the test's views. It is run and held against PyTorch
before it is there: logits that are more than 1e-4 apart (fp32) are an error. `timesformer predict
--checkpoint FILE` takes it as it takes weights.

Examples:
  ONNX, for onnxruntime; pixels 0..255 go in, logits come out
    timesformer export --checkpoint runs/synthetic/divided --to onnx --out model.onnx
  with weights in 8 bits, and what that changes on videos:
    timesformer export --checkpoint runs/synthetic/divided --to onnx --out int8.onnx --int8 \
        --compare data/synthetic/test
  OpenVINO in 8 bits, calibrated on other videos than it is compared on, which is faster yet and
  further from the model than without --calibrate:
    timesformer export --checkpoint runs/synthetic/divided --to openvino --out int8.xml --int8 \
        --calibrate data/synthetic/train --compare data/synthetic/test
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from timesformer.inference.export import Exported, check_asked, export
from timesformer.inference.exported import is_exported
from timesformer.inference.formats import FORMATS
from timesformer.inference.formats.base import CLIPS, INPUTS
from timesformer.inference.given import find
from timesformer.inference.load import load
from timesformer.inference.options import ModelParser
from timesformer.utils.errors import UserError
from timesformer.utils.files import make_place
from timesformer.utils.parser import input_path, output_path
from timesformer.utils.text import counted, format_table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "--checkpoint WEIGHTS --to FORMAT --out FILE [options]"
    parser = ModelParser("export", __doc__, usage)
    parser.add_checkpoint(exported=False)
    suffixes = ", ".join(f"{f.name} ({f.suffix})" for f in FORMATS.values())
    parser.add_argument("--to", required=True, choices=FORMATS, metavar="FORMAT", help=suffixes)
    parser.add_argument("--out", required=True, type=output_path, metavar="FILE")
    parser.add_argument("--input", choices=INPUTS, default="pixels",
                        help="what goes in: pixels 0..255, float (these) or uint8, or normalised "
                        "clips")  # fmt: skip
    parser.add_argument("--dtype", choices=["fp32", "fp16"], default="fp32",
                        help="of weights, and of what is computed (fp32)")  # fmt: skip
    parser.add_argument("--int8", action="store_true",
                        help="weights in 8 bits, of onnx and openvino; activations are rounded as "
                        "they come")  # fmt: skip
    parser.add_argument("--calibrate", type=input_path, metavar="FOLDER|LIST",
                        help="videos like those to come: --int8 of openvino takes the ranges of "
                        "activations from them")  # fmt: skip
    parser.add_argument("--compare", type=input_path, metavar="FOLDER|LIST",
                        help="videos on which its answers are held against PyTorch's; --int8 "
                        "needs them")  # fmt: skip
    parser.add_sampling_rate()
    parser.add_argument("--force", action="store_true", help="replace what is at FILE")
    args = parser.parse(argv)
    parser.need_positive(args, "--sampling-rate")
    if args.int8:
        parser.refuse(args, ["--dtype"], "--int8 is a type of its own: leave it out")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Export, and print what was written and how it compares."""
    args = parse_args(argv)
    kind, precision = FORMATS[args.to], "int8" if args.int8 else args.dtype
    check_asked(kind, args.out, precision, args.calibrate)
    if args.int8 and args.compare is None:
        raise UserError("--int8: changes what a model says: name videos to see it, --compare")
    if is_exported(args.checkpoint):
        raise UserError(f"{args.checkpoint}: is exported already: name what it was made of")
    if os.path.lexists(args.out) and not args.force:
        raise UserError(f"{args.out}: is there already; --force replaces it")
    make_place(args.out)
    kind.require(args.int8)
    calibrate, compare = (find([v]) if v else None for v in (args.calibrate, args.compare))
    model = load(args.checkpoint, device="cpu", sampling_rate=args.sampling_rate)
    tell(
        export(
            model,
            args.out,
            args.to,
            input=args.input,
            precision=precision,
            source=args.checkpoint,
            calibrate=calibrate,
            compare=compare,
        )
    )


def tell(done: Exported) -> None:
    """Print what was written and how it compares."""
    about, speed = done.about, done.speed
    shape = ", ".join(map(str, about.shape))
    dtype = str(about.dtype).removeprefix("torch.")
    print(f"{CLIPS} (B, {shape}) {dtype}: {INPUTS[about.input]}")
    batches = [counted(batch, "clip") for batch in done.differences]
    largest = [f"{value:.1e}" for value in done.differences.values()]
    rows = [["largest difference from PyTorch", *batches], ["logits of noise", *largest]]
    print(format_table(rows))
    print(
        f"PyTorch {speed.torch:.1f} ms a clip, {done.runtime} {speed.exported:.1f} ms (medians of "
        f"{counted(speed.rounds, 'pass', 'passes')} of one clip, taken in turn; CPU, "
        f"{counted(speed.threads, 'thread')})"
    )
    if done.agreement is not None:
        videos, cosine, lowest, top1 = done.agreement
        print(
            f"{counted(videos, 'video')}: the same class for {100 * top1:.1f} %, cosine of scores "
            f"{cosine:.5f} (lowest {lowest:.5f})"
        )
    print(f"wrote {done.path} ({about.precision}, {done.size / 1e6:.1f} MB)")
