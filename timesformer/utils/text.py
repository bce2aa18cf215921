"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[object]], gap: str = "  ") -> str:
    """Align columns: numbers to the right, the first column and columns of text to the left.

    Args:
        rows: cells by row, the header first.
        gap: what stands between columns.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    to_left = [i == 0 or not any(map(_is_number, c[1:])) for i, c in enumerate(columns)]
    return "\n".join(
        gap.join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, to_left, strict=True)
        ).rstrip()
        for row in cells
    )


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or (cell[:1] in "+-." and cell[1:2].isdigit())
