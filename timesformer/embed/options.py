"""Options that commands share which look at features of videos."""

from __future__ import annotations

from timesformer.embed import BATCH
from timesformer.utils.parser import CommandParser


def add_reading(parser: CommandParser) -> None:
    """Add `--class-names`, `--prefix`, `--sampling-rate`, `--batch-size` and `--workers`."""
    parser.add_argument("--class-names", default="", metavar="FILE",
                        help="a name a line, or a shipped list, e.g. kinetics400")  # fmt: skip
    parser.add_argument("--prefix", default="", metavar="FOLDER",
                        help="that the paths of a list are relative to")  # fmt: skip
    parser.add_sampling_rate()
    parser.add_argument("--batch-size", type=int, default=BATCH, metavar="N",
                        help=f"videos that a model gets at once ({BATCH})")  # fmt: skip
    parser.add_workers()
