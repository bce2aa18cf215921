"""The command line: what commands have in common, from words to options.

`load_recipe` and `load_config` (`asked_config.py`) make of options a checked config.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CONFIG_SUFFIXES, check_dashes, check_pairs
from timesformer.config.recipes import recipe_names
from timesformer.utils.asked_config import is_run, load_config, load_recipe
from timesformer.utils.errors import UserError, in_one_line
from timesformer.utils.files import expand_home
from timesformer.utils.processes import cores

__all__ = [
    "CommandParser",
    "duration",
    "input_path",
    "load_config",
    "load_recipe",
    "output_path",
    "parse_args",
    "png_path",
]

_ABOUT = "Train a video model, test it, or both, as a recipe says."
_KEYS = "Every key, its default and its meaning: timesformer keys [WORD]."


def input_path(word: str) -> Path:
    """Return a path of the command line, with the home folder for `~`."""
    return Path(expand_home(word))


def output_path(word: str) -> Path:
    """Return a path of the command line where something is to be made."""
    if not word.strip() or not word.isprintable():
        raise argparse.ArgumentTypeError(f"{word!r:.200}: a path without control characters")
    return input_path(word)


def png_path(word: str) -> Path:
    """Return a path of the command line where a picture is to be made."""
    path = output_path(word)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{word!r:.200}: pictures are PNG: end the name in .png")
    return path


def duration(word: str) -> float:
    """Return the seconds that a word of the command line means: 0.5, 1s, 500ms."""
    number, factor = word.strip().lower(), 1.0
    if number.endswith("ms"):
        number, factor = number[:-2], 1e-3
    elif number.endswith("s"):
        number = number[:-1]
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r:.60}: seconds, as 0.5, 1s or 500ms")
    return seconds


class CommandParser(argparse.ArgumentParser):
    """Argparse, whose complaints are one line, with the arguments that several commands take.

    Args:
        name: the command; None takes the name of the program that runs.
        about: what it does, with an example; often the docstring of its module. `%(prog)s` stands
            for the program.
        usage: the words after the program's name; None lets argparse write them.
    """

    def __init__(self, name: str | None, about: str | None, usage: str | None = None) -> None:
        super().__init__(
            prog=f"timesformer {name}" if name else None,
            usage=f"%(prog)s {usage}" if usage else None,
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._splits: Sequence[str] = ()
        self._takes_pairs = False
        self._words: list[str] = []

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and leave with status 2."""
        if self._takes_pairs and "required" in message:
            wanted = [word for word in message.replace(",", " ").split() if word[:2] == "--"]
            given = [word.partition("=")[0] for word in self._words]
            recipe = next(filter(_is_recipe, self._words), "")
            run = next(filter(is_run, self._words[:1]), "")  # others may be values
            if late := [option for option in wanted if option in given]:
                message = f"{late[0]} must come before the KEY VALUE pairs"
            elif "--cfg" in wanted and recipe:
                message = f"give the recipe as --cfg {recipe}"
            elif "--cfg" in wanted and run:
                message = f"give the run as --cfg {run}"
        self.exit(2, f"error: {in_one_line(message)}; see {self.prog} --help\n")

    def add_cfg(
        self,
        meaning: str,
        among: argparse._MutuallyExclusiveGroup | None = None,
        required: bool = True,
    ) -> None:
        """Add `--cfg`, the recipe, in `cfg_file`; `among` makes it one of several choices."""
        to, required = (self, required) if among is None else (among, False)
        to.add_argument("--cfg", dest="cfg_file", metavar="FILE", required=required, help=meaning)

    def add_pairs(self) -> None:
        """Add the KEY VALUE pairs that override the recipe, in `opts`. They come last."""
        self.add_argument(
            "opts",
            nargs=argparse.REMAINDER,
            metavar="KEY VALUE",
            help="after all options: pairs that override the file, e.g. NUM_GPUS 0 "
            "SOLVER.BASE_LR 1e-3 DATA.MEAN '[.5, .5, .5]'; of a key given twice the last counts",
        )
        self.epilog, self._takes_pairs = _KEYS, True

    def add_splits(self, splits: Sequence[str]) -> None:
        """Add `--splits`, which takes some of these; [] when not given."""
        self._splits = splits
        self.add_argument(
            "--splits", nargs="+", metavar="SPLIT", help=f"{' '.join(splits)} (all of them)"
        )

    def add_sampling_rate(self) -> None:
        """Add `--sampling-rate`, of models whose weights don't say which frames they take."""
        self.add_argument(
            "--sampling-rate", type=int, metavar="N",
            help="frames from one to the next at 30 frames/s, for weights that don't say it",
        )  # fmt: skip

    def add_workers(self, few: int = 0) -> None:
        """Add `--workers`; with `few`, None where it isn't given.

        Args:
            few: videos for which starting processes takes longer than decoding.
        """
        less = f", none for {few} videos or fewer" if few else ""
        self.add_argument(
            "--workers", type=int, default=None if few else cores(), metavar="N",
            help=f"processes (one for each core{less}); 0: none but this one",
        )  # fmt: skip

    def need_positive(self, args: argparse.Namespace, *options: str) -> None:
        """Make sure that numbers, where they are given, are 1 or more.

        Raises:
            UserError: one isn't.
        """
        for option in options:
            value = getattr(args, _attribute(option))
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: must be 1 or more")

    def need_above_zero(self, args: argparse.Namespace, *options: str) -> None:
        """Make sure that numbers and durations, where they are given, are above 0 and finite.

        Raises:
            UserError: one isn't.
        """
        for option in options:
            value = getattr(args, _attribute(option))
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{option} {value:g}: must be above 0")

    def refuse(self, args: argparse.Namespace, options: Sequence[str], why: str) -> None:
        """Refuse options that would do nothing beside the others.

        Raises:
            UserError: one has another value than its default.
        """
        for option in options:
            name = _attribute(option)
            if getattr(args, name) != self.get_default(name):
                raise UserError(f"{option}: {why}")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse the words after the program's name; None takes them from `sys.argv`.

        Raises:
            UserError: an option stands after KEY VALUE pairs, where it would be taken for one of
                them; or what `--splits` or `--workers` say can't be.
        """
        self._words = list(sys.argv[1:] if argv is None else argv)
        keys = dict(get_cfg().leaves())
        if self._takes_pairs:
            check_dashes(self._words, keys, self._option_string_actions)
        # Several videos, say, may stand before and after options; pairs come last anyway.
        parse = self.parse_args if self._takes_pairs else self.parse_intermixed_args
        args = parse(self._words)
        if self._splits:
            args.splits, args.opts = _part_splits(args.splits or [], args.opts, self._splits)
        check_pairs(getattr(args, "opts", ()), keys)
        if (getattr(args, "workers", 0) or 0) < 0:
            raise UserError(f"--workers {args.workers}: must be 0 or more")
        return args


def _attribute(option: str) -> str:
    """Return what argparse calls the value of an option."""
    return option.lstrip("-").replace("-", "_")


def _is_recipe(word: str) -> bool:
    return word.endswith(CONFIG_SUFFIXES) or word in recipe_names()


def _part_splits(
    words: Sequence[str], opts: list[str], splits: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Part `--splits train val KEY VALUE`, which argparse takes for four splits."""
    count = next((i for i, word in enumerate(words) if word not in splits), len(words))
    if count < len(words) and not words[count].isupper():
        raise UserError(f"--splits {words[count]!r}: must be of {', '.join(splits)}")
    return list(words[:count]), [*words[count:], *opts]


def parse_args(
    argv: Sequence[str] | None = None, name: str | None = None, about: str | None = None
) -> argparse.Namespace:
    """Parse the arguments of what trains and tests.

    Args:
        argv: the words after the program's name; None takes them from `sys.argv`.
        name: the command; None takes the name of the program that runs.
        about: what it does, with examples; None says it in a line.

    Returns:
        `cfg_file`, `num_shards` and `shard_id` (None when not given), `init_method`, `opts`.
    """
    parser = CommandParser(name, about or _ABOUT, "--cfg FILE [options] [KEY VALUE ...]")
    parser.add_cfg(
        "YAML file that says what to run, the name of a recipe (`timesformer recipes` lists them), "
        "or a run's folder or checkpoint, for the config that it was trained with"
    )
    parser.add_argument(
        "--num_shards",
        type=int,
        metavar="N",
        help="number of nodes, when you start each by hand (default: NUM_SHARDS in the config); "
        "not needed under torchrun",
    )
    parser.add_argument(
        "--shard_id",
        type=int,
        metavar="I",
        help="which of them this one is, 0 to N-1 (default: SHARD_ID in the config)",
    )
    parser.add_argument(
        "--init_method",
        default="",
        metavar="URL",
        help="where the processes of nodes that you start by hand meet: tcp://HOST:PORT of node 0; "
        "others find a place by themselves",
    )
    parser.add_pairs()
    return parser.parse(argv)
