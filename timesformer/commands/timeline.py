r"""Say what is in a long video, and when: labels with times.

Windows slide along the video, each a clip as the model takes it; their scores become segments.
DIR gets segments.csv and .json, scores.npz, subtitles (segments.srt, .vtt) and timeline.png. A file
that breaks off gives the timeline up to there, and says so; status 1 if it can't be read at all.

Examples:
  a window every half second:
    timesformer timeline match.mp4 --checkpoint runs/synthetic/divided --stride 0.5s --out match
  nothing is claimed below 70 %, and segments are two seconds long at least; a film with labels, too
    timesformer timeline match.mp4 --checkpoint runs/synthetic/divided --out match --enter 0.7 \
        --min-length 2s --annotate
  how good it is, by true segments (columns video,start,end,label):
    timesformer timeline match.mp4 --checkpoint runs/synthetic/divided --out match --truth truth.csv
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from timesformer.datasets.video.whole import WholeVideo
from timesformer.inference.detection import Detection, Truth, detection, read_truth
from timesformer.inference.options import ModelParser, load_asked
from timesformer.inference.predictor import Predictor
from timesformer.inference.segments import Rules
from timesformer.inference.timeline import STRIDE, Timeline, timeline
from timesformer.inference.timeline_files import FILES, write_timeline
from timesformer.inference.timeline_picture import timeline_picture
from timesformer.utils.errors import UserError, VideoError, in_one_line
from timesformer.utils.files import make_places, write_text
from timesformer.utils.logging import progress
from timesformer.utils.parser import duration, input_path, output_path
from timesformer.utils.run_lock import run_lock
from timesformer.utils.text import counted, format_table
from timesformer.visualization.annotated import Caption, write_annotated
from timesformer.visualization.style import class_colours, write_png

PICTURE, FILM, QUALITY = "timeline.png", "annotated.mp4", "detection.json"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    rules = Rules()
    parser = ModelParser("timeline", __doc__, "VIDEO --checkpoint WEIGHTS --out DIR [options]")
    parser.add_argument("video", type=input_path, metavar="VIDEO")
    parser.add_checkpoint()
    parser.add_argument("--out", type=output_path, required=True, metavar="DIR")
    parser.add_argument("--stride", type=duration, default=STRIDE, metavar="TIME",
                        help="from one window to the next: 1s, 500ms, 0.5 (1s)")  # fmt: skip
    parser.add_window("window")
    parser.add_argument("--enter", type=float, default=rules.enter, metavar="P",
                        help="probability from which on a class is claimed "
                        f"({rules.enter})")  # fmt: skip
    parser.add_argument("--leave", type=float, metavar="P",
                        help="below which it no longer is "
                        f"({rules.leave}, or --enter if that is lower)")  # fmt: skip
    for name, meaning in (
        ("--min-length", "shorter segments aren't claimed"),
        ("--max-gap", "segments of a class with no more between them are one"),
        ("--smooth", "probabilities are averaged over so long; 0: not at all"),
    ):
        parser.add_argument(name, type=duration, metavar="TIME",
                            help=f"{meaning} (half of a window)")  # fmt: skip
    parser.add_argument("--background", action="append", default=[], metavar="NAME",
                        help="a class that stands for nothing; may be given again")  # fmt: skip
    parser.add_argument("--annotate", action="store_true",
                        help=f"write {FILM}, too; decodes the video again")  # fmt: skip
    parser.add_argument("--truth", type=input_path, metavar="CSV",
                        help="true segments: video,start,end,label; measures and writes "
                        f"{QUALITY}")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the segments as JSON")
    parser.add_computing()
    parser.add_batch_size()
    args = parser.parse(argv)
    parser.need_above_zero(args, "--stride", "--window")
    if args.leave is None:
        args.leave = min(rules.leave, args.enter)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Make a timeline; status 1 if the video can't be read."""
    args = parse_args(argv)
    rules = Rules(
        args.enter, args.leave, args.min_length, args.max_gap, args.smooth, tuple(args.background)
    )
    if not os.path.lexists(args.video):
        raise UserError(f"{args.video}: there is no such video")
    more = [FILM] * args.annotate + [QUALITY] * (args.truth is not None)
    with run_lock(make_places(args.out, [*FILES, PICTURE, *more]), "--out"):
        make(args, rules, more)


def make(args: argparse.Namespace, rules: Rules, more: Sequence[str]) -> None:
    """Make a timeline in a folder that is this process's, with more files than the usual ones."""
    predictor = load_asked(args)
    truth = [] if args.truth is None else truth_of(args.truth, predictor, args.video)
    start = time.perf_counter()
    try:
        found = timeline(
            predictor,
            args.video,
            stride=args.stride,
            window=args.window,
            rules=rules,
            num_crops=args.crops,
            multi_label=args.multi_label,
            batch_size=args.batch_size,
        )
    except VideoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    seconds = time.perf_counter() - start
    for name in sorted({FILM, QUALITY} - {*more}):
        if os.path.lexists(args.out / name):  # beside this one it would be taken for its own
            (args.out / name).unlink()
            print(f"removed {args.out / name}, of an earlier timeline", file=sys.stderr)
    write_timeline(args.out, found, args.checkpoint)
    measured = None
    if args.truth is not None:
        clocks = {found.path: (found.fps, round(found.duration * found.fps))}
        measured = detection({found.path: found.segments}, truth, found.names, clocks)
        write_text(args.out / QUALITY, json.dumps(measured.to_json(), indent=1) + "\n")
    write_png(args.out / PICTURE, timeline_picture(found, truth))
    if args.annotate:
        annotate(args.out / FILM, found)
    tell(found, measured, seconds, args)


def truth_of(path: Path, predictor: Predictor, video: Path) -> list[Truth]:
    """Read the true segments of the video, known by its path."""
    if not os.path.lexists(path):
        raise UserError(f"--truth {path}: there is no such file")
    if not predictor.class_names:
        raise UserError(f"--truth {path}: the weights don't know what their classes are called")
    found = read_truth(path, predictor.class_names, str(video))
    return [one._replace(video=str(video)) for one in found]


def annotate(path: Path, found: Timeline) -> None:
    """Write annotated.mp4."""
    colours = class_colours(len(found.names))
    captions = [
        Caption(s.start, s.end, f"{s.name} {100 * s.confidence:.0f} %", s.confidence,
                colours[s.label])
        for s in found.segments
    ]  # fmt: skip
    frames = progress(WholeVideo(found.path), "annotate", round(found.duration * found.fps))
    write_annotated(path, frames, captions)


def tell(
    found: Timeline, measured: Detection | None, seconds: float, args: argparse.Namespace
) -> None:
    """Print the segments, how good they are, and what was done."""
    if args.json:
        said = found.to_json()
        print(json.dumps(said | ({"detection": measured.to_json()} if measured else {})))
        return
    rows = [["start", "end", "label", "confidence"]]
    for s in found.segments:
        rows.append([f"{s.start:.2f}", f"{s.end:.2f}", s.name, f"{100 * s.confidence:.1f} %"])
    print(format_table(rows) if found.segments else "no segment: nothing is claimed")
    if measured:
        scores = zip(measured.thresholds, measured.mean_ap, strict=True)
        values = ", ".join(f"@{t:g} {100 * value:.1f}" for t, value in scores)
        print(f"temporal mAP in %: {values}")
        print(f"frame accuracy: {100 * measured.frame_accuracy:.1f} %")
    if found.damage:
        print(f"{in_one_line(found.path)}: used as decoded: {found.damage}",
              file=sys.stderr)  # fmt: skip
    print(
        f"{found.duration:.1f} s of video, {counted(found.frames, 'frame')}, "
        f"{counted(len(found.starts), 'window')} in {seconds:.1f} s "
        f"({found.duration / seconds:.2g} x real time)"
    )
    print(f"wrote {args.out}")
