"""Text for people: tables, and hints about words that are nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from tabulate import DataRow, TableFormat, tabulate

from timesformer.utils.errors import in_one_line


def format_table(rows: Sequence[Sequence[object]], gap: str = "  ") -> str:
    """Align columns: numbers to the right, the first column and columns of text to the left.

    Args:
        rows: cells by row, the header first.
        gap: what stands between columns.
    """
    cells = [[in_one_line(str(cell)) for cell in row] for row in rows]
    columns = zip(*cells, strict=True)
    sides = [
        "left" if i == 0 or not any(map(_is_number, column[1:])) else "right"
        for i, column in enumerate(columns)
    ]
    row = DataRow("", gap, "")
    plain = TableFormat(None, None, None, None, row, row, 0, None)
    # The header is a row like the others: as a header, tabulate would pad it. Numbers are written
    # as they should be read (1,285.9, 3 ms, 93 %), so tabulate may not parse them.
    text = tabulate(
        cells,
        tablefmt=plain,
        colalign=sides,
        disable_numparse=True,
        preserve_whitespace=True,
    )
    return "\n".join(line.rstrip() for line in text.split("\n"))


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or (cell[:1] in "+-." and cell[1:2].isdigit())


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number with its noun: "1 video", "1,200 videos"; `things` where "s" isn't enough."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def class_name(names: Sequence[str], label: int) -> str:
    """Return what a class is called; "class 7" where nothing names it."""
    return names[label] if label < len(names) else f"class {label}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest known name, or "" when none is near.

    Case doesn't matter. Of names with dots or slashes, one that is right but for some letters of
    its last part comes first, then one whose last part is right.
    """
    upper = {k.upper(): k for k in known}
    last = _last_part(name.upper())
    group = name.upper().removesuffix(last)
    in_group = {_last_part(k): k for k in upper if group and k == group + _last_part(k)}
    near = [in_group[k] for k in difflib.get_close_matches(last, in_group, 1, 0.85)]
    same_last = [k for k in upper if _last_part(k) == last]  # right key, wrong group
    near = near or difflib.get_close_matches(name.upper(), same_last, 1, 0.0)
    near = near or difflib.get_close_matches(name.upper(), upper, 1, 0.5)
    return f"; did you mean {upper[near[0]]}?" if near else ""


def not_known(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that isn't in a registry: the nearest one, or all there are."""
    names = list(known)
    hint = did_you_mean(name, names) or f"; choose from {', '.join(names)}"
    return f"{what} {name!r:.200} is not known{hint}"


def _last_part(name: str) -> str:
    return name.replace("/", ".").rpartition(".")[2]
