"""List the keys that recipes set: what each means, and its default.

Examples:
  timesformer keys
  timesformer keys checkpoint
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import fields

from timesformer.config.defaults import get_cfg, key_comments
from timesformer.models.architecture import Architecture
from timesformer.utils.errors import UserError
from timesformer.utils.parser import CommandParser
from timesformer.utils.text import did_you_mean


def meanings() -> dict[str, str]:
    """Return what every key means; those of the model are documented with its architecture."""
    knobs = {knob.metadata["key"]: knob.metadata["meaning"] for knob in fields(Architecture)}
    return {
        key: comment or f"{knobs[key][0].upper()}{knobs[key][1:]}."
        for key, comment in key_comments().items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print every key, or those that a word is in."""
    parser = CommandParser("keys", __doc__)
    parser.add_argument(
        "word", nargs="?", default="", metavar="WORD", help="only keys with it, in any case"
    )
    word = parser.parse(argv).word
    values, shown = dict(get_cfg().leaves()), 0
    for key, meaning in meanings().items():
        if word.lower() in f"{key} {meaning}".lower():
            shown += 1
            print(f"{key} {values[key]!r}")
            print(textwrap.indent(textwrap.fill(meaning, 92), "    "))
    if not shown:
        hint = did_you_mean(word, values)
        raise UserError(f"keys: none has {word!r} in its name or its meaning{hint}")
