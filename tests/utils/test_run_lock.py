"""One run for one folder."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import platform
import signal
from pathlib import Path
from typing import Any

import pytest

from timesformer.utils.errors import UserError
from timesformer.utils.files import LOCK_NAME
from timesformer.utils.run_lock import run_lock


def test_it_is_held_and_given_back(tmp_path: Path) -> None:
    with run_lock(tmp_path), run_lock(tmp_path):
        said = json.loads((tmp_path / LOCK_NAME).read_text())
        assert (said["host"], said["pid"]) == (platform.node(), os.getpid())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def hold_until_killed(folder: Path) -> None:
    with run_lock(folder):
        print("held", flush=True)
        signal.pause()


def test_another_process_is_named(tmp_path: Path) -> None:
    from children import Run  # which skips where there is no fork

    folder = tmp_path / "run"
    folder.mkdir()
    other = Run(hold_until_killed, folder, output=tmp_path / "said")
    while other.said != "held\n":
        assert other.wait(0.01) is None, other.said
    with (
        pytest.raises(UserError, match=rf"in use by another run, process {other.pid} .*OUTPUT_DIR"),
        run_lock(folder),
    ):
        pass
    other.kill()
    with run_lock(folder):  # it is gone, and left its lock
        pass
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "said",
    [
        {"pid": 2**22 + 1, "start": 5},  # no such process
        {"pid": os.getpid(), "start": 5},  # its number is another's by now
    ],
)
def test_a_stale_lock_is_taken(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": platform.node(), **said}))
    with run_lock(tmp_path):
        pass


def test_what_another_machine_does_cant_be_asked(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(
        json.dumps({"host": "node-7", "pid": 1, "since": "yesterday"})
    )
    with pytest.raises(UserError, match=r"on node-7 \(since yesterday\).*delete .*\.lock"):
        run_lock(tmp_path).__enter__()


def test_a_requeued_job_takes_over_its_own_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran on another machine before, which was taken from it at once."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")

    def held_by(**job: str) -> None:
        said = {"host": "node-7", "pid": 1, "since": "yesterday", "job": job}
        (tmp_path / LOCK_NAME).write_text(json.dumps(said))

    held_by(cluster="", id="77", start="0")
    with run_lock(tmp_path):
        said = json.loads((tmp_path / LOCK_NAME).read_text())
        assert said["job"] == {"cluster": "", "id": "77", "start": "1"}
    for other in ({"id": "78", "start": "0"}, {"id": "77", "start": "1"}):  # the same: a neighbour
        held_by(cluster="", **other)
        with pytest.raises(UserError, match=rf"on node-7, SLURM job {other['id']} \(since"):
            run_lock(tmp_path).__enter__()


def test_a_lock_without_content_is_somebodys_for_a_while(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("")
    with pytest.raises(UserError, match="in use by another run"):
        run_lock(tmp_path).__enter__()
    for time in (0, 2**33):  # long ago, or before a clock went back
        (tmp_path / LOCK_NAME).write_text("")
        os.utime(tmp_path / LOCK_NAME, (time, time))
        with run_lock(tmp_path):
            pass


@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def without(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if links:
            patch.setattr(Path, "write_text", full)
        else:
            patch.setattr(os, "link", without)
            patch.setattr(os, "fdopen", full)
        with pytest.raises(UserError, match=r"\.lock: can't be written: No space left"):
            run_lock(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "link", "unlink"])
def test_killed_while_taking_it_nobody_is_kept_out(tmp_path: Path, call: str) -> None:
    """At each step that leaves something, the next one gets it at once, and clears up."""
    if not hasattr(os, "fork"):
        pytest.skip("a process is forked, which this system can't")
    pid = os.fork()
    if not pid:
        real = {"write": Path.write_text, "link": os.link, "unlink": Path.unlink}[call]

        def die(*args: Any, **options: Any) -> None:
            if call != "unlink":
                real(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        place = {"write": (Path, "write_text"), "link": (os, "link"), "unlink": (Path, "unlink")}
        setattr(*place[call], die)
        run_lock(tmp_path).__enter__()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) != []
    with run_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    assert list(tmp_path.iterdir()) == []


def test_without_links_it_is_a_lock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", without)
    with run_lock(tmp_path):
        said = json.loads((tmp_path / LOCK_NAME).read_text())
        assert said["pid"] == os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr("timesformer.utils.run_lock._held", {})  # as another process sees it
            with pytest.raises(UserError, match="in use by another run"):
                run_lock(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_stays_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a disk became read-only, which is what ended the run."""

    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:

        def patching() -> None:
            with run_lock(tmp_path):
                patch.setattr(Path, "unlink", read_only)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            patching()
    assert "can't be removed: Read-only file system; the next run takes it over" in caplog.text


def test_the_numbers_of_another_container_say_nothing_here(tmp_path: Path) -> None:
    """A container numbers its processes anew, and may have the name of the machine."""
    gone = {"host": platform.node(), "pid": 2**22 + 1, "processes": "pid:[1]"}
    (tmp_path / LOCK_NAME).write_text(json.dumps(gone))
    with (
        pytest.raises(UserError, match=rf"in another container on {platform.node()}.*delete"),
        run_lock(tmp_path),
    ):
        pass


def hold(folder: Path, start: Any, results: Any) -> None:
    start.wait()
    try:
        with run_lock(folder):
            results.put("held")
            start.wait()
    except UserError:
        results.put("refused")
        start.wait()


def test_of_several_at_once_one_gets_it(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": platform.node(), "pid": 2**22 + 1}))
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(5), context.Queue()
    processes = [context.Process(target=hold, args=(tmp_path, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    start.wait(20)
    found = sorted(results.get(timeout=20) for _ in processes)
    start.wait(20)
    for process in processes:
        process.join(20)
    assert found == ["held", "refused", "refused", "refused"]
