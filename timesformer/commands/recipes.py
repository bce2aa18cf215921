"""List the recipes that come with the package; `--cfg` takes their names.

Examples:
  timesformer recipes
  timesformer recipes ssv2
"""

from __future__ import annotations

from collections.abc import Sequence

from timesformer.config.recipes import recipe_names, recipe_summary
from timesformer.utils.errors import UserError
from timesformer.utils.parser import CommandParser
from timesformer.utils.text import format_table


def main(argv: Sequence[str] | None = None) -> None:
    """Print name and summary of each recipe, or of those that a word is in."""
    parser = CommandParser("recipes", __doc__)
    parser.add_argument(
        "word", nargs="?", default="", metavar="WORD", help="only recipes with it, in any case"
    )
    word = parser.parse(argv).word
    rows = [(name, recipe_summary(name)) for name in recipe_names()]
    rows = [row for row in rows if word.lower() in " ".join(row).lower()]
    if not rows:
        raise UserError(f"recipes: none has {word!r} in its name or its summary")
    print(format_table([("recipe", "what it is"), *rows]))
