"""Log lines, JSON lines and bars: where they go, and from which rank."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from timesformer.utils import distributed, files
from timesformer.utils.distributed import World
from timesformer.utils.files import append_line
from timesformer.utils.logging import (
    get_logger,
    log_json_stats,
    progress,
    setup_logging,
)


@pytest.fixture
def rank_1(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "_world", World(1, 2, 1, 2))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_stdout_and_with_time_stamps_to_the_file(tmp_path, capsys):
    setup_logging(str(tmp_path))
    setup_logging(str(tmp_path))  # training, then testing, in one process: no line twice
    get_logger("timesformer.engine.train").info("wrote %s", "a checkpoint")
    assert capsys.readouterr().out == "wrote a checkpoint\n"
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(stamp + r" INFO timesformer\.engine\.train: wrote a checkpoint", line)


@pytest.mark.usefixtures("rank_1")
def test_other_ranks_only_warn_on_stderr(tmp_path, capsys):
    setup_logging(str(tmp_path / "out"))
    logger = get_logger("timesformer.engine.train")
    logger.info("everybody says this")
    logger.warning("disk full")
    log_json_stats({"split": "val"}, str(tmp_path / "out"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[rank 1] disk full\n")
    assert not (tmp_path / "out").exists()


def test_json_lines_are_appended_and_hold_only_json(tmp_path, capsys):
    log_json_stats({"split": "a", "loss": 1 / 3, "lr": 5e-5, "iter": "1/2"}, str(tmp_path / "out"))
    log_json_stats({"split": "b", "loss": float("nan"), "mem": float("inf")}, str(tmp_path / "out"))
    lines = (tmp_path / "out" / "stats.jsonl").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert json.loads(lines[0]) == {"split": "a", "loss": 0.3333333, "lr": 5e-5, "iter": "1/2"}
    assert json.loads(lines[1]) == {"split": "b", "loss": None, "mem": None}


@pytest.mark.parametrize("torn", [b"", b'{"a": ', b"x" * 50, b"x" * 47])
@pytest.mark.parametrize("whole", [b"", b'{"a": 1}\n', b"{}\n" * 40])
def test_a_line_is_not_joined_to_a_torn_one(whole, torn, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 16)
    (tmp_path / "stats.jsonl").write_bytes(whole + torn)
    append_line(tmp_path / "stats.jsonl", "{}")
    assert (tmp_path / "stats.jsonl").read_bytes() == whole + b"{}\n"


def test_bars_are_for_people(monkeypatch):
    items = [1, 2, 3]
    assert progress(items, "epoch 1") is items  # under pytest nobody watches
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(items, "epoch 1", total=3)) == items
    assert "epoch 1" in terminal.getvalue()


@pytest.mark.usefixtures("rank_1")
def test_no_bars_on_other_ranks(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    items = [1, 2, 3]
    assert progress(items, "epoch 1") is items


def test_a_line_does_not_break_a_bar(monkeypatch, tmp_path):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    setup_logging(str(tmp_path))
    for _ in progress([1, 2], "epoch 1", total=2):
        get_logger("timesformer.x").info("a line")
    # The bar is wiped before each line (\r), so that a line starts and ends on its own.
    assert re.search(r"\r *\ra line\n", screen.getvalue())
