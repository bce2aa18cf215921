"""Whose error it is that ended the others, and processes that end with those that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from children import finish, running
from small_run import small_cfg

from timesformer.engine import train as module
from timesformer.engine.train import train
from timesformer.utils import blame
from timesformer.utils.blame import Blame, end_of_lost, of_silent
from timesformer.utils.distributed import get_rank
from timesformer.utils.errors import ANOTHER_ENDED, Stopped, UserError
from timesformer.utils.processes import end_with_parent, end_with_torchrun
from timesformer.utils.starting import launch

OPTIONS = {"TEST__ENABLE": False, "TRAIN__EVAL_PERIOD": 0}


def meet(data: Path, output: Path, how: str) -> None:
    """Train on two ranks, of which rank 1 meets something before its second step."""
    real, done = module.train_step, []

    def step(*args: Any) -> Any:
        done.append(0)
        if len(done) == 2 and get_rank() == 1:
            if how == "bug":
                raise KeyError("a key of ours")
            os.kill(os.getpid(), getattr(signal, how))
        return real(*args)

    module.train_step = step
    options = OPTIONS | {"TRAIN__WATCHDOG_MINUTES": 0.1}
    launch(small_cfg(data, output, **options), "", train)


@pytest.mark.dist
def test_the_log_has_the_traceback_of_the_rank_that_failed(synthetic_dir, tmp_path):
    """And it is shown once: the other rank adds nothing."""
    output = tmp_path / "run"
    args, env = (synthetic_dir, output, "bug"), {"TORCHELASTIC_RUN_ID": "7"}
    with running(meet, *args, output=tmp_path / "said", ranks=2, env=env) as ranks:
        assert finish(ranks, 60) == [1, 1], [rank.said for rank in ranks]
        assert not [pid for rank in ranks for pid in rank.left_behind()]
        said = [rank.said for rank in ranks]
    log = (output / "run.log").read_text()
    assert "why (rank 1: KeyError: 'a key of ours')\nTraceback (most recent call" in log
    assert 'raise KeyError("a key of ours")' in log
    assert "raise KeyError" in said[1]
    assert "Traceback" not in said[0]
    assert "error:" not in said[0]


@pytest.mark.dist
def test_a_rank_that_hangs_is_no_hang_of_the_other(synthetic_dir, tmp_path):
    output = tmp_path / "run"
    args = (synthetic_dir, output, "SIGSTOP")
    with running(meet, *args, output=tmp_path / "said", ranks=2) as (first, second):
        assert first.wait(60) == 70, first.said
        assert second.wait(0) is None
        said, log = first.said, (output / "run.log").read_text()
        os.kill(second.pid, signal.SIGCONT)
        assert second.wait(60) in (2, 70)  # it finds nobody
    assert "rank 0 has made no progress for 0.1" in said
    assert "epoch 1, step 2" in said
    assert "Thread MainThread:" in log
    assert "in train_step\n" in log


@pytest.mark.parametrize("status", [2, 70, 75, 130])
def test_a_launcher_shows_an_error_as_it_was(status):
    error = Blame(1, "no\nspace", status).error()
    assert isinstance(error, Stopped) == (status in (75, 130))
    assert (str(error), error.status) == ("no\\nspace", status)


WHY = f"{ANOTHER_ENDED} (rank 1: no space)"


@pytest.mark.parametrize(
    ("of", "rank", "one_screen", "said"),
    [
        (None, 0, True, ANOTHER_ENDED),
        (None, 1, True, ""),
        (1, 0, True, ""),
        (1, 2, True, WHY),
        (1, 3, True, ""),
        (None, 1, False, ANOTHER_ENDED),
        (1, 0, False, WHY),
        (1, 3, False, WHY),
    ],
)
def test_what_a_rank_adds_that_has_lost_another(monkeypatch, of, rank, one_screen, said):
    """Two ranks a node: under torchrun, the first of a node where nobody there has said it."""
    told = None if of is None else Blame(of, "no space", 70)
    monkeypatch.setattr(blame, "told", lambda: told)
    error = end_of_lost(rank, rank % 2, 2, one_screen=one_screen)
    assert isinstance(error, UserError if said else SystemExit)
    if said:
        assert str(error) == said
    assert (error.status if said else error.code) == (2 if of is None else 70)


def test_ranks_that_ended_without_a_word():
    def said(*statuses: int | None) -> str:
        return str(of_silent([SimpleNamespace(exitcode=s) for s in statuses]) or "")

    assert said(2, -9) == (
        "process 1 of this node was killed by SIGKILL: the system does that where memory is full"
    )
    assert said(-15, 0, -11) == "process 2 of this node was killed by SIGSEGV"
    assert said(None, 70) == "process 1 of this node has ended with status 70"
    assert said(2, 1, -15) == ""


def starts_one(how: str, folder: str) -> None:
    """Start a process as a launcher does, which would go on for a minute; and wait for it."""

    def rank() -> None:
        {"spawn": end_with_parent, "torchrun": end_with_torchrun}[how]()
        (Path(folder) / str(os.getpid())).touch()
        time.sleep(60)

    if how == "spawn":
        multiprocessing.get_context("fork").Process(target=rank).start()
        time.sleep(60)
    elif not os.fork():
        rank()
    time.sleep(60)


@pytest.mark.parametrize("how", ["spawn", "torchrun"])
def test_ranks_end_with_a_launcher_that_is_killed(tmp_path, how):
    (folder := tmp_path / "ranks").mkdir()
    env = {"TORCHELASTIC_RUN_ID": "7"}
    args = (how, str(folder))
    with running(starts_one, *args, output=tmp_path / "said", env=env) as (run,):
        end = time.monotonic() + 60
        while not list(folder.iterdir()) and time.monotonic() < end:
            time.sleep(0.1)
        assert list(folder.iterdir()), run.said
        run.kill()
        assert run.left_behind(20) == []
