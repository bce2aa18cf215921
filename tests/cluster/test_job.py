"""What runs in a job: how an end is understood, what follows, and what is told of it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_run
import pytest

from timesformer.cluster import job
from timesformer.cluster.attempts import Attempts, progress_of
from timesformer.cluster.job import NOTICE, ClusterRun, GivenUpError
from timesformer.utils.checkpoint_files import Place

pytest.importorskip("submitit")


class QueuedAgain(BaseException):
    """What submitit does after `checkpoint`: the process ends."""


@pytest.fixture(autouse=True)
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A job of the local executor, in whose process this one is; submitit's handler is ours."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_FOLDER", "unused")
    before = {number: signal.getsignal(number) for number in (NOTICE, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def attempt(
    folder: Path, plan: str, monkeypatch: pytest.MonkeyPatch, run: ClusterRun | None = None
) -> ClusterRun | str:
    """One start of a job: what the run returns, or what is queued again."""
    monkeypatch.setenv("FAKE_PLAN", plan)
    words = ("--cfg", "X", "OUTPUT_DIR", str(folder))
    run = run or ClusterRun(words, str(folder), 2, "s", 4.0, fake_run.PROGRAM)

    def queue(*_: object) -> None:
        queued.append(run.checkpoint())
        raise QueuedAgain

    queued: list[Any] = []
    signal.signal(NOTICE, queue)
    try:
        return run()
    except QueuedAgain:
        again = pickle.loads(pickle.dumps(queued[0].function))
        assert again == run
        return again


def soon(folder: Path, what: Callable[[int], object], name: str = "ready_0_1") -> threading.Thread:
    """Does something with the run's process once it is there."""

    def act() -> None:
        until = time.monotonic() + 20
        while not (folder / name).exists() and time.monotonic() < until:
            time.sleep(0.02)
        what(int((folder / "started_0").read_text().split()[0]))

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def ends(folder: Path) -> list[tuple[int, str]]:
    return [(x["status"], x["then"]) for x in Attempts(folder, "s").lines("end")]


def test_a_run_that_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt(tmp_path, "done", monkeypatch) == "finished in attempt 1"
    assert ends(tmp_path) == [(0, "finished")]
    assert attempt(tmp_path, "crash", monkeypatch) == "finished before"  # it isn't started


def test_a_notice_lets_it_save_and_queues_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = "wait,wait,done"
    thread = soon(tmp_path, lambda pid: os.kill(os.getpid(), NOTICE))
    again = attempt(tmp_path, plan, monkeypatch)
    thread.join()
    assert isinstance(again, ClusterRun)
    assert ends(tmp_path) == [(75, "again")]
    assert progress_of(tmp_path) == Place(0, 1)
    # SIGTERM, which clusters send too, is handed on; on this machine it means the same.
    thread = soon(tmp_path, lambda pid: os.kill(os.getpid(), signal.SIGTERM), "ready_0_2")
    again = attempt(tmp_path, plan, monkeypatch, again)
    thread.join()
    assert isinstance(again, ClusterRun)
    assert attempt(tmp_path, plan, monkeypatch, again) == "finished in attempt 3"
    assert ends(tmp_path) == [(75, "again"), (75, "again"), (0, "finished")]
    said = capsys.readouterr().out
    assert "asked to make room: the run has 2 s to save" in said
    assert "to be queued again: its time was over, or its machine was wanted" in said


def test_a_run_that_doesnt_end_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = soon(tmp_path, lambda pid: os.kill(os.getpid(), NOTICE))
    assert isinstance(attempt(tmp_path, "deaf", monkeypatch), ClusterRun)
    thread.join()
    assert ends(tmp_path) == [(-9, "again")]
    assert "didn't end within 2 s and was killed" in Attempts(tmp_path, "s").outcome()[1]


def test_the_notice_itself_doesnt_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some clusters send it to all processes of a task."""

    def both(pid: int) -> None:
        os.kill(pid, NOTICE)
        os.kill(os.getpid(), NOTICE)

    thread = soon(tmp_path, both)
    assert isinstance(attempt(tmp_path, "wait", monkeypatch), ClusterRun)
    thread.join()
    assert ends(tmp_path) == [(75, "again")]


def test_crashes_without_progress_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = attempt(tmp_path, "crash", monkeypatch)
    assert isinstance(again, ClusterRun)
    again = attempt(tmp_path, "crash,advance,crash", monkeypatch, again)  # progress: counts anew
    assert isinstance(again, ClusterRun)
    again = attempt(tmp_path, "crash,advance,crash", monkeypatch, again)
    assert isinstance(again, ClusterRun)
    with pytest.raises(
        GivenUpError,
        match=r"^2 attempts without progress past epoch 2: RuntimeError: out of memory "
        r"\(status 1\); mend that \(.*run.log, .*attempts.jsonl\) and submit it again",
    ):
        attempt(tmp_path, "crash", monkeypatch, again)
    assert [then for _, then in ends(tmp_path)] == ["again"] * 4 + ["gave up"]


def test_jobs_that_are_killed_at_once_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM starts them again by itself, and nobody was asked."""
    attempts = Attempts(tmp_path, "s")
    for _ in range(2):
        attempts.begin("7", "here")
    Attempts(tmp_path, "another").begin("8", "here")
    with pytest.raises(GivenUpError, match=r"2 attempts .* past epoch 0: its job was killed"):
        attempt(tmp_path, "done", monkeypatch)
    assert not (tmp_path / "started_0").exists()


@pytest.mark.parametrize(
    ("action", "status", "then", "said"),
    [
        ("mistake", 2, "gave up", r"^train.csv: no such file; mend that and submit it again$"),
        ("interrupted", 130, "stopped", r"^interrupted: .*submit it again: it goes on$"),
    ],
)
def test_what_no_other_attempt_would_mend(
    action: str, status: int, then: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GivenUpError, match=said):
        attempt(tmp_path, action, monkeypatch)
    assert ends(tmp_path) == [(status, then)]


def test_another_ranks_error_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pid: int) -> None:
        Attempts(tmp_path, "s").note_rank(3, 2, "weights: no such file")

    monkeypatch.setenv("SUBMITIT_LOCAL_NTASKS", "4")
    words = ("OUTPUT_DIR", str(tmp_path))
    run = ClusterRun(words, str(tmp_path), 2, "s", 4.0, fake_run.PROGRAM, look=0.1, patience=0.2)
    thread = soon(tmp_path, fail)
    with pytest.raises(GivenUpError, match=r"^weights: no such file \(rank 3\); mend"):
        attempt(tmp_path, "deaf", monkeypatch, run)  # it waits for the rank, and is killed
    thread.join()
    run = replace(run, look=5.0)
    thread = soon(tmp_path, fail, "ready_0_2")
    with pytest.raises(GivenUpError, match=r"^weights: no such file \(rank 3\); mend"):
        attempt(tmp_path, "lost", monkeypatch, run)
    thread.join()


def test_the_local_executor_starts_a_job_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: Any = None
    for _ in range(job.LOCAL_STARTS - 1):
        again = attempt(tmp_path, "advance", monkeypatch, again)
        assert isinstance(again, ClusterRun)
    with pytest.raises(GivenUpError, match=r"starts a job 6 times at most; .* submit it again"):
        attempt(tmp_path, "advance", monkeypatch, again)


def test_a_torn_line_is_no_attempt(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "new", "s")
    assert (attempts.count(), attempts.fruitless(), attempts.outcome()[0]) == (0, 0, "")
    assert attempts.begin("7", "here") == 1
    with attempts.path.open("a") as file:
        file.write('{"submission": "s", "what": "st')
    assert attempts.begin("7", "here") == 2
    assert [json.loads(line)["attempt"] for line in attempts.path.read_text().splitlines()] == [
        1,
        2,
    ]
