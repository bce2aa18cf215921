"""`timesformer COMMAND …`, and the same as `python -m timesformer COMMAND …`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from timesformer import __version__, commands
from timesformer.utils.discover import module_names
from timesformer.utils.errors import UserError, run_tool, signals_end_at_once
from timesformer.utils.text import did_you_mean

HELP = """\
usage: timesformer COMMAND [WORDS ...]
       timesformer {{--help | --version}}

TimeSformer, space-time attention for video: train it, test it, and look after its data.

commands:
{commands}

`timesformer COMMAND --help` shows the words that a command takes, and an example.
"""


def command_names() -> list[str]:
    """Return the commands' names, sorted: those of the modules, with hyphens."""
    return [name.replace("_", "-") for name in module_names(commands.__path__)]


def summary(command: str) -> str:
    """Return the first line of a command's docstring, read without importing what it needs."""
    spec = find_spec(_module(command))
    assert spec is not None
    assert spec.origin is not None
    try:
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:  # one broken file doesn't hide the others
        return f"(can't be read: {error})"
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def help_text() -> str:
    """Return what `timesformer --help` prints."""
    names = command_names()
    width = max(map(len, names))
    return HELP.format(commands="\n".join(f"  {n:{width}}  {summary(n)}" for n in names))


def dispatch(argv: Sequence[str]) -> None:
    """Do what the words after `timesformer` say.

    Raises:
        UserError: there is no such command, or what the command raises.
    """
    first, *words = argv or ["--help"]
    command = first.replace("_", "-")
    if first in ("-h", "--help"):
        print(help_text(), end="")
    elif first == "--version":
        print(f"timesformer {__version__}")
    elif command in (names := command_names()):
        with signals_end_at_once():
            module = import_module(_module(command))
        module.main(words)
    else:
        kind = "option" if first.startswith("-") else "command"
        raise UserError(
            f"timesformer: there is no {kind} {first} (`timesformer --help` lists the "
            f"commands){did_you_mean(command, names)}"
        )


def main() -> None:
    """Do what the command line says: the console script `timesformer`."""
    run_tool(lambda: dispatch(sys.argv[1:]))


def _module(command: str) -> str:
    return f"{commands.__name__}.{command.replace('-', '_')}"


if __name__ == "__main__":
    main()
