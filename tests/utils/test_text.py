"""Tables and hints."""

from __future__ import annotations

import pytest

from timesformer.utils.text import counted, did_you_mean, format_table, not_known


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


def test_cells_stay_as_they_are_written() -> None:
    rows = [("x", "y"), ("1e3", "0.590"), ("002", "1,285.9")]
    assert format_table(rows, gap=" | ").splitlines() == [
        "x   |       y",
        "1e3 |   0.590",
        "002 | 1,285.9",
    ]
    assert format_table([("only", "a header")]) == "only  a header"
    rows = [("x", "y"), ("  indented", "a\nb"), ("\x01", "one\u2028")]
    assert format_table(rows, gap="|").split("\n") == [
        "x         |y",
        "  indented|a\\nb",
        "\\x01      |one\\u2028",
    ]


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("SOLVER.BASE_LRR", ["SOLVER.BASE_LR", "SOLVER.LRS"], "; did you mean SOLVER.BASE_LR?"),
        ("TRAIN.NUM_GPUS", ["NUM_GPUS", "TRAIN.DATASET"], "; did you mean NUM_GPUS?"),
        ("EMA.ENABLE", ["TEST.ENABLE", "EMA.DECAY", "EMA.ENABLED"], "; did you mean EMA.ENABLED?"),
        (
            "MODEL.NUM_FRAMES",
            ["MODEL.NUM_CLASSES", "DATA.NUM_FRAMES"],
            "; did you mean DATA.NUM_FRAMES?",
        ),
        ("Check-Dta", ["check-data", "convert"], "; did you mean check-data?"),
        ("zebra", ["check-data", "convert"], ""),
        ("x", [], ""),
    ],
)
def test_the_nearest_name(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def test_a_name_that_isnt_known() -> None:
    names = ["kinetics", "VideoFolder"]
    assert not_known("KEY", "videofoldr", names) == (
        "KEY 'videofoldr' is not known; did you mean VideoFolder?"
    )
    assert not_known("KEY", "x", names).endswith("; choose from kinetics, VideoFolder")


def test_one_is_singular() -> None:
    assert [counted(n, "video") for n in (0, 1, 1200)] == ["0 videos", "1 video", "1,200 videos"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
