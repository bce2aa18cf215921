r"""Say what a camera or a stream shows, as it comes.

The newest clip is predicted, again and again; where the model is slower than the stream, clips are
dropped rather than piled up. A stream that ends or fails is opened again. Ctrl-C ends it, with a
summary.

Examples:
  a camera, or a stream, every half second:
    timesformer watch 0 --checkpoint runs/synthetic/divided
    timesformer watch rtsp://camera/live --checkpoint runs/synthetic/divided --every 0.5s
  a line of JSON for each clip; a file plays at its own speed, - is stdin:
    timesformer watch video.mp4 --checkpoint runs/synthetic/divided --json
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from timesformer.inference.options import ModelParser, load_asked
from timesformer.inference.source import source_of
from timesformer.inference.watch import EVERY, RECONNECT, TIMEOUT, Seen, Summary, Watch
from timesformer.utils.errors import UserError, VideoError, in_one_line
from timesformer.utils.files import expand_home
from timesformer.utils.parser import duration
from timesformer.utils.text import counted


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "CAMERA|URL|VIDEO|- --checkpoint WEIGHTS [options]"
    parser = ModelParser("watch", __doc__, usage)
    parser.add_argument("source", type=expand_home, metavar="CAMERA|URL|VIDEO|-")
    parser.add_checkpoint()
    often = parser.add_mutually_exclusive_group()
    often.add_argument("--every", type=duration, metavar="TIME",
                       help=f"from one clip to the next: 1s, 500ms, 0.5 ({EVERY:g}s)")  # fmt: skip
    often.add_argument("--every-frames", type=int, metavar="N", help="the same in frames")
    parser.add_window("clip")
    parser.add_topk()
    parser.add_argument("--timeout", type=duration, default=TIMEOUT, metavar="TIME",
                        help="without a frame, after which a source has failed "
                        f"({TIMEOUT:g}s)")  # fmt: skip
    parser.add_argument("--reconnect", type=int, default=RECONNECT, metavar="N",
                        help=f"attempts in a row to open a stream again ({RECONNECT})")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a line of JSON a clip")
    parser.add_computing()
    args = parser.parse(argv)
    parser.need_positive(args, "--every-frames")
    if args.reconnect < 0:
        raise UserError(f"--reconnect {args.reconnect}: must be 0 or more")
    parser.need_above_zero(args, "--every", "--window", "--timeout")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Watch until the source ends or a signal comes; status 1 if the source fails for good."""
    args = parse_args(argv)
    source = source_of(args.source)
    predictor = load_asked(args)
    with stopped_by_signals() as stop:
        watch = Watch(
            predictor,
            source,
            every=args.every,
            every_frames=args.every_frames,
            window=args.window,
            num_crops=args.crops,
            multi_label=args.multi_label,
            topk=args.topk,
            timeout=args.timeout,
            reconnect=args.reconnect,
            stop=stop,
        )
        failed = False
        try:
            for seen in watch:
                tell(seen, args.json)
        except VideoError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    if watch.summary.damage:
        print(f"{in_one_line(source.word)}: used as decoded: {watch.summary.damage}",
              file=sys.stderr)  # fmt: skip
    summarise(watch.summary)
    if failed:
        sys.exit(1)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set, where they would end the process."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # which has all signals
        yield stop
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(seen: Seen, as_json: bool) -> None:
    """Print what the newest clip shows."""
    if as_json:
        print(json.dumps(seen.to_json()), flush=True)
        return
    chances = ", ".join(
        f"{in_one_line(guess.name)} {100 * guess.prob:.1f} %" for guess in seen.prediction.top
    )
    dropped = f", {seen.dropped} dropped" if seen.dropped else ""
    print(
        f"{seen.at:%H:%M:%S}.{seen.at.microsecond // 1000:03d}  {chances}"
        f"  ({1000 * seen.latency:.0f} ms, {seen.fps:.1f} frames/s{dropped})",
        flush=True,
    )


def summarise(done: Summary) -> None:
    """Print what was seen in all, where it isn't in the way of a program."""
    again = f", opened again {counted(done.opened, 'time')}" if done.opened else ""
    print(
        f"{counted(done.predictions, 'clip')} in {done.seconds:.1f} s, "
        f"{counted(done.dropped, 'clip')} dropped; {counted(done.frames, 'frame')}{again}; "
        f"latency {1000 * done.latency:.0f} ms, {1000 * done.longest:.0f} ms at most",
        file=sys.stderr,
    )
