from __future__ import annotations

from timesformer.utils.text import format_table


def test_numbers_to_the_right_and_text_to_the_left() -> None:
    rows = [
        ("name", "count", "note", "share"),
        ("a", "1,000", "fine", "-1.5 %"),
        ("bcd", 7, "", "-"),
    ]
    assert format_table(rows).splitlines() == [
        "name  count  note   share",
        "a     1,000  fine  -1.5 %",
        "bcd       7             -",
    ]
