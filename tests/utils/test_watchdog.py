"""What is a hang and what only takes long; and what is left to say of a process that hangs."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from children import running

from timesformer.utils import watchdog
from timesformer.utils.ending import at_sudden_end
from timesformer.utils.run_lock import run_lock
from timesformer.utils.watchdog import doing, watching, witnessed


def looks(*said: str | int, limit: float = 10) -> list[float]:
    """The seconds of idleness at which it is a hang; a name is a new mark, a number its seconds."""
    patience, now, hangs = watchdog._Patience(limit), watchdog._Doing("start", "", True), []
    watchdog._begun.clear()
    for word in said:
        if isinstance(word, str):
            doing(word)
            now = watchdog._now
            assert not patience.is_over(now, 0, 1)
        else:
            for _ in range(word):
                if patience.is_over(now, 0, 1):
                    hangs.append(patience.idle)
                    break
    return hangs


def test_what_is_a_hang():
    assert looks("step", "step", 9, "step", 9, "step", 5) == []
    assert looks("step", "step", 11) == [10]
    assert looks("step", 29, "step", 29) == []  # a compiler; and others may take as long then
    assert looks("step", 40) == [30]
    assert looks("step", 20, "step", 70) == [60]
    assert looks("start", 29, "step", "step", 11) == [10]
    assert looks("step", "step", "batch", 29, "batch", 29) == []


def test_what_workers_read_is_progress():
    patience, now = watchdog._Patience(10), watchdog._Doing("wait", "", False)
    assert not any(patience.is_over(now, i // 5, 1) for i in range(100))
    assert sum(patience.is_over(now, 20, 1) for _ in range(30)) == 18


def hang(folder: str, minutes: float) -> None:
    def says() -> list[str]:
        return ["loader worker 1 is reading é\n.mp4"]

    (Path(folder) / "run.log").touch()
    acts = Path(folder) / "acts"
    with (
        watching(minutes, folder),
        run_lock(folder),
        at_sudden_end(lambda: acts.write_text("done")),
        at_sudden_end(lambda: time.sleep(600)),  # doesn't keep it from ending
        witnessed(lambda: 1, says),
    ):
        doing("forward pass", "2 of epoch 1, step 3")
        time.sleep(600)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="forks")
def test_a_process_that_hangs_says_where_and_ends(tmp_path):
    with running(hang, str(tmp_path), 0.002, output=tmp_path / "said") as (run,):
        assert run.wait(60) == watchdog.STATUS == 70
        said, log = run.said, (tmp_path / "run.log").read_text()
    for text in (said, log):
        assert "rank 0 has made no progress for 0.00" in text
        assert "the last that it began: forward pass, 2 of epoch 1, step 3; loader" in text
        assert "loader worker 1 is reading é\\n.mp4; it ends with status 70" in text
        assert "Thread MainThread:" in text
        assert "in hang\n    time.sleep(600)" in text
    assert said.startswith("error: rank 0")
    assert (tmp_path / "acts").read_text() == "done"
    assert not (tmp_path / ".lock").exists()


def test_one_watch_within_another_and_none(tmp_path):
    with watching(0, str(tmp_path)), watching(60, str(tmp_path)), watching(1e-9, str(tmp_path)):
        time.sleep(0.05)
