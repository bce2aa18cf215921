"""A run's folder: what can be wrong with it, and what is written there when a run ends."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import small_cfg, stats

from timesformer.config.defaults import get_cfg
from timesformer.engine.scope import run_scope
from timesformer.engine.train import train
from timesformer.utils import logging as logging_module
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.files import HOST, make_place
from timesformer.utils.logging import get_logger, log_json_stats, setup_logging
from timesformer.utils.run_lock import run_lock

ONE = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0, "TRAIN__EVAL_PERIOD": 0}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("a file", "is there and is no folder"),
        ("below a file", r"can't make this folder: \S*file is no folder"),
        ("dangling", "is there and is no folder"),
        ("too long", "can't make this folder: File name too long"),
    ],
)
def test_folders_that_cant_be(tmp_path: Path, kind: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "folder")
    folder = {
        "a file": "file",
        "below a file": "file/run",
        "dangling": "dangling",
        "too long": "x" * 300,
    }[kind]
    with pytest.raises(ConfigError, match=f"OUTPUT_DIR .*: {said}"):
        setup_logging(str(tmp_path / folder))


def test_the_home_folder_and_control_characters(synthetic_dir: Path) -> None:
    cfg = small_cfg(synthetic_dir, Path("~/runs/a"))
    assert str(Path.home() / "runs/a") == cfg.OUTPUT_DIR
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR 'a\\nb': a path without control"):
        small_cfg(synthetic_dir, Path("a\nb"))


def test_a_second_run_in_the_same_folder_is_refused(synthetic_dir: Path, tmp_path: Path) -> None:
    with run_lock(tmp_path):
        lock = tmp_path / ".lock"
        lock.write_text(lock.read_text().replace(str(os.getpid()), str(os.getppid())))
        lock.write_text(lock.read_text().replace('"start"', '"was"'))
        # Another process has it, as far as the file says.
        from timesformer.utils import run_lock as module

        held = module._held.copy()
        module._held.clear()
        try:
            with pytest.raises(UserError, match="in use by another run"):
                train(small_cfg(synthetic_dir, tmp_path, **ONE))
        finally:
            module._held.update(held)
        lock.unlink()


def test_what_ends_a_run_is_in_its_log_once(synthetic_dir: Path, tmp_path: Path) -> None:
    cfg = small_cfg(synthetic_dir, tmp_path)
    with pytest.raises(UserError), run_scope(cfg), run_scope(cfg):
        raise UserError("the list has no videos")
    assert (tmp_path / "run.log").read_text().count("the list has no videos") == 1
    with pytest.raises(ZeroDivisionError), run_scope(cfg):
        _ = 1 / 0
    assert "Traceback" in (tmp_path / "run.log").read_text()
    assert not (tmp_path / ".lock").exists()


def test_a_reader_that_is_gone_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        for epoch in (1, 2):
            log_json_stats({"split": "val", "epoch": epoch}, str(tmp_path))
    assert [line["epoch"] for line in stats(tmp_path, "val")] == [1, 2]


def test_a_terminal_of_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    setup_logging(str(tmp_path))
    get_logger("timesformer.test").info("8 × 224")
    assert b"8 \\xd7 224" in terminal.buffer.getvalue()
    assert "8 × 224" in (tmp_path / "run.log").read_text(encoding="utf-8")


class Full(io.StringIO):
    """A stream to a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_for_the_log_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging(str(tmp_path))
    (handler,) = (h for h in get_logger("timesformer").handlers if hasattr(h, "baseFilename"))
    whole, handler.stream = handler.stream, Full()
    for _ in range(2):
        get_logger("timesformer.test").info("line")
    handler.stream = whole
    assert capsys.readouterr().err.count("run.log: can't be written: No space left") == 1


def test_a_full_disk_for_stdout_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    setup_logging(str(tmp_path))
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        get_logger("timesformer.test").info("line")
        for epoch in (1, 2):
            log_json_stats({"split": "val", "epoch": epoch}, str(tmp_path))
    said = "stdout: can't be written: No space left on device; nothing more goes there\n"
    assert capfd.readouterr().err == said
    assert [line["epoch"] for line in stats(tmp_path, "val")] == [1, 2]
    assert "line" in (tmp_path / "run.log").read_text()


def test_a_full_disk_for_the_figures_doesnt_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, line: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    setup_logging(str(tmp_path))
    monkeypatch.setattr(logging_module, "append_line", full)
    log_json_stats({"split": "val"}, str(tmp_path))
    shown = capsys.readouterr().out
    assert "stats.jsonl: can't be written: No space left" in shown
    assert '{"split": "val"}' in shown


@pytest.mark.parametrize(
    "name",
    [
        *("run.log", "stats.jsonl", ".lock", "broken_videos.csv"),
        *("scores.npz", "scores.csv"),
        *("checkpoints/checkpoint_best.pyth", "checkpoints/checkpoint_epoch_00001.pyth"),
    ],
)
def test_pipes_where_a_run_writes_are_refused_at_once(
    tmp_path: Path, make_fifo: Callable[[Path], None], name: str
) -> None:
    (tmp_path / "checkpoints").mkdir()
    make_fifo(tmp_path / name)
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.SAVE_RESULTS_PATH = "scores.npz, scores.csv"
    with pytest.raises(UserError, match=f"{re.escape(name)}: not a regular"), run_scope(cfg):
        pass
    assert (tmp_path / name).is_fifo()


@pytest.mark.parametrize("key", ["TEST.SAVE_RESULTS_PATH", "TENSORBOARD.LOG_DIR"])
def test_results_and_curves_that_cant_be_are_told_before_any_work(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").touch()
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    path = "file/scores.npz" if key.startswith("TEST") else str(tmp_path / "file" / "curves")
    cfg.merge_from_list([key, path])
    complaint = r"file: is there and is no folder|file is no folder"
    with pytest.raises(UserError, match=complaint), run_scope(cfg):
        pytest.fail("the run has begun")
    cfg.TRAIN.ENABLE = cfg.TEST.ENABLE = False  # nobody writes them
    with run_scope(cfg):
        pass


def test_a_place_is_looked_at_and_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f".a.png.{HOST}.{os.getppid()}.tmp"  # half of another process's file
    theirs.touch()
    make_place(tmp_path / "a.png")
    assert theirs.exists()


def test_what_lies_where_checkpoints_go_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    with pytest.raises(UserError, match="checkpoints: is there and is no folder"), run_scope(cfg):
        pass
