r"""Say what is in videos: the likeliest classes of each.

A video is looked at as the test of the weights looks at it, in the same views and with the same
pixels; all that it takes comes with the weights. A file that can't be read is told, the others are
predicted all the same, and the status is 1 then.

Examples:
  one video, or everything below a folder:
    timesformer predict video.mp4 --checkpoint runs/synthetic/divided
    timesformer predict videos/ --checkpoint runs/synthetic/divided --out predictions.csv
  a list with a path a line, for a program: a line of JSON a video, and nothing else on stdout
    timesformer predict list.txt --checkpoint runs/synthetic/divided --json
  an exported file (`timesformer export`), computed by onnxruntime, OpenVINO or torch:
    timesformer predict video.mp4 --checkpoint model.onnx
  other views of each video than in the test: clips x crops
    timesformer predict video.mp4 --checkpoint runs/synthetic/divided --views 4x3
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from timesformer.datasets.video.reader import VideoReader
from timesformer.inference.given import find
from timesformer.inference.options import ModelParser, load_asked
from timesformer.inference.prediction import Prediction
from timesformer.inference.prediction_files import SUFFIXES, json_line, write_predictions
from timesformer.utils.errors import UserError, in_one_line
from timesformer.utils.files import is_file, make_place
from timesformer.utils.logging import progress
from timesformer.utils.parser import input_path, output_path
from timesformer.utils.processes import cores
from timesformer.utils.text import counted

FEW = 4  # videos for which starting processes takes longer than decoding


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "VIDEO|FOLDER|LIST ... --checkpoint WEIGHTS [options]"
    parser = ModelParser("predict", __doc__, usage)
    parser.add_argument("videos", nargs="+", type=input_path, metavar="VIDEO|FOLDER|LIST")
    parser.add_checkpoint()
    parser.add_topk()
    parser.add_views()
    parser.add_argument("--out", type=output_path, metavar="FILE", help=", ".join(SUFFIXES))
    parser.add_argument("--json", action="store_true", help="print a line of JSON a video")
    parser.add_computing()
    parser.add_batch_size()
    parser.add_workers(FEW)
    parser.add_frames_fps()
    args = parser.parse(argv)
    if args.out is not None and args.out.suffix not in SUFFIXES:
        raise UserError(f"--out {args.out}: its name must end in {', '.join(SUFFIXES)}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Predict; status 1 if some videos can't be read."""
    args = parse_args(argv)
    videos = find(args.videos)
    if args.out is not None:
        make_place(args.out)
    model = load_asked(args)
    if args.views is not None:
        model = model.with_views(args.views)
    workers = args.workers
    if workers is None:
        workers = cores() if len(videos) > FEW else 0
    stream = model.stream(
        videos,
        topk=args.topk,
        batch_size=args.batch_size,
        workers=workers,
        reader=VideoReader(frames_fps=args.frames_fps),
    )
    start, failed = time.perf_counter(), 0
    with kept(args.out, len(videos), args.checkpoint) as found:
        for prediction in progress(stream, "predict", len(videos)):
            failed += prediction.error is not None
            tell(prediction, args.json, alone=len(videos) == 1)
            if args.out is not None:
                found.append(prediction)
        seconds = time.perf_counter() - start
    if not args.json:
        summarise(len(videos), failed, seconds, model.testing.views, args.out)
    if failed:
        sys.exit(1)


@contextmanager
def kept(out: Path | None, videos: int, checkpoint: str) -> Iterator[list[Prediction]]:
    """Give a list whose predictions are written to `out` at the end.

    If something is raised before, they are written beside it: its own name is that of all videos.
    """
    found: list[Prediction] = []
    partial = None if out is None else out.with_name(f"{out.stem}.incomplete{out.suffix}")
    try:
        yield found
    except BaseException:
        if partial is not None and found:
            try:
                write_predictions(partial, found, checkpoint)
                told = f"{partial} has what was predicted before"
            except OSError as error:
                told = f"{partial}: can't be written: {error.strerror}"
            print(f"ended after {len(found)} of {counted(videos, 'video')}: {told}",
                  file=sys.stderr)  # fmt: skip
        raise
    if out is not None and partial is not None:
        write_predictions(out, found, checkpoint)
        if is_file(partial):
            partial.unlink()
            print(f"removed {partial}, of an earlier run", file=sys.stderr)


def tell(prediction: Prediction, as_json: bool, alone: bool) -> None:
    """Print what is in a video."""
    if as_json:
        print(json_line(prediction), flush=True)
        return
    path = in_one_line(prediction.path)
    if prediction.error is not None:
        print(f"error: {path}: {in_one_line(prediction.error)}", file=sys.stderr)
        return
    damage = f" (used as decoded: {prediction.damage})" if prediction.damage else ""
    chances = [(in_one_line(guess.name), f"{100 * guess.prob:.1f} %") for guess in prediction.top]
    if not alone:
        print(f"{path}{damage}: {', '.join(' '.join(pair) for pair in chances)}")
        return
    width = max(len(name) for name, _ in chances)
    print(f"{path}{damage}")
    for name, chance in chances:
        print(f"  {name:{width}}  {chance:>7}")


def summarise(videos: int, failed: int, seconds: float, views: str, out: Path | None) -> None:
    """Print what was done, of how many videos, and how fast."""
    if videos > 1:
        rate = videos / seconds
        print(f"{counted(videos, 'video')} in {seconds:.1f} s ({rate:.2g} videos/s), {views} views")
    if out is not None:
        print(f"wrote {out}")
    if failed and videos > 1:
        print(f"{counted(failed, 'video')} couldn't be read", file=sys.stderr)
