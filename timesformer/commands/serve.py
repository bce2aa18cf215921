r"""Open a page in the browser to try a model on.

Drop or record a video: the likeliest classes, the clip that the model saw and, of a long video,
what is in it over time; or several videos, and a table of answers. Only this computer reaches the
page unless --host says otherwise; nothing is sent anywhere, and nothing is fetched.

Examples:
  on http://127.0.0.1:7860, until Ctrl-C:
    timesformer serve --checkpoint runs/synthetic/divided
  with videos that can be clicked, and larger files
    timesformer serve --checkpoint runs/synthetic/divided --examples videos --max-mb 1000
  for everybody who can reach this computer
    timesformer serve --checkpoint runs/synthetic/divided --host 0.0.0.0 --port 8000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from timesformer.inference.given import find
from timesformer.inference.options import ModelParser, load_asked
from timesformer.inference.page import make_page
from timesformer.inference.page_server import LOCAL, listen, own_folder, serve, where
from timesformer.inference.shown import Limits
from timesformer.utils.errors import UserError
from timesformer.utils.files import is_file
from timesformer.utils.parser import input_path
from timesformer.utils.text import counted

PORT = 7860
EXAMPLES = 24  # that are offered


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    limits = Limits()
    parser = ModelParser("serve", __doc__, "--checkpoint WEIGHTS [options]")
    parser.add_checkpoint()
    parser.add_argument("--examples", type=input_path, metavar="FOLDER",
                        help=f"videos that are offered, {EXAMPLES} at most")  # fmt: skip
    parser.add_argument("--host", default=LOCAL, metavar="ADDRESS",
                        help=f"to listen on; 0.0.0.0: all addresses ({LOCAL})")  # fmt: skip
    parser.add_argument("--port", type=int, default=PORT, metavar="N",
                        help=f"port to listen on; 0: one that is free ({PORT})")  # fmt: skip
    parser.add_argument("--max-mb", type=float, default=limits.megabytes, metavar="N",
                        help=f"larger files aren't taken ({limits.megabytes:g})")  # fmt: skip
    parser.add_argument("--max-seconds", type=float, default=limits.seconds, metavar="N",
                        help=f"longer videos aren't taken ({limits.seconds:g})")  # fmt: skip
    parser.add_topk()
    parser.add_views()
    parser.add_computing()
    args = parser.parse(argv)
    parser.need_above_zero(args, "--max-mb", "--max-seconds")
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port {args.port}: must be 0 to 65535")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until it is interrupted."""
    args = parse_args(argv)
    import gradio  # noqa: F401  (what is missing is told before the work)

    examples = [] if args.examples is None else examples_in(args.examples)
    with listen(args.host, args.port) as sock, own_folder():
        model = load_asked(args)
        if args.views is not None:
            model = model.with_views(args.views)
        limits = Limits(args.max_mb, args.max_seconds)
        title = Path(args.checkpoint).name or args.checkpoint
        page = make_page(model, title=title, examples=examples, limits=limits, topk=args.topk)
        print(f"{where(sock)}; Ctrl-C ends it", flush=True)
        serve(page, sock, limits)


def examples_in(folder: Path) -> list[str]:
    """Return the first videos of a folder.

    Raises:
        UserError: there is none.
    """
    found = [record.path for record in find([folder]) if is_file(record.path)]
    if not found:
        raise UserError(f"--examples {folder}: there are no video files in it")
    if len(found) > EXAMPLES:
        print(f"--examples {folder}: the first {EXAMPLES} of {counted(len(found), 'video')}")
    return found[:EXAMPLES]
