"""Faults inside of a run: ranks that crash or hang, launchers that die, no shared memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from campaign import tell
from children import PATIENCE, command, finish, lines, running, words
from small_run import PYTHONPATH
from test_kills import differing, what_a_run_left

from timesformer.datasets.video.reader import VideoReader
from timesformer.engine import train as module

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENV = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
OPTIONS: dict[str, Any] = {
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "TEST__SAVE_RESULTS_PATH": "scores.npz",
    "TRAIN__CHECKPOINT_STEPS": 1,
    "DATA_LOADER__NUM_WORKERS": 1,
}
# A run of which rank 1 meets something before its fourth step, unless it has been started again.
SCRIPT = """
import os, signal, sys
from timesformer.commands.run import main
from timesformer.engine import train as module

real, done = module.train_step, []

def step(*args):
    done.append(0)
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if len(done) == 4 and first and os.environ["RANK"] == "1":
        if "{how}" == "bug":
            raise KeyError("a key of ours")
        if "{how}" == "tell":
            open("here", "w").close()
            signal.pause()
        os.kill(os.getpid(), signal.{how}) if "{how}".startswith("SIG") else None
    return real(*args)

if __name__ == "__main__":
    module.train_step = step
    main(sys.argv[1:])
"""


def script(folder: Path, how: str) -> str:
    path = folder / f"{how}.py"
    path.write_text(SCRIPT.replace("{how}", how))
    return str(path)


def workers_of(text: str) -> list[int]:
    """Processes whose command line has a text."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and text in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, UnicodeDecodeError):
            pass
    return found


@pytest.mark.dist
@pytest.mark.parametrize("how", ["bug", "SIGKILL", "SIGSEGV"])
def test_torchrun_starts_again_and_the_run_ends_to_the_bit(synthetic_dir, tmp_path, how):
    straight = tmp_path / "straight"
    argv = words(synthetic_dir, straight, **OPTIONS)
    with running(command, "run", argv, ranks=2, output=tmp_path / "said") as ranks:
        assert finish(ranks, 200) == [0, 0], ranks[0].said[-3000:]
    output = tmp_path / "run"
    argv = words(synthetic_dir, output, **OPTIONS)
    began = time.monotonic()
    done = subprocess.run(
        [*TORCHRUN, "--max-restarts=1", script(tmp_path, how), *argv],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=400 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["first_step"] for line in lines(output, "start")] == [1, 1]
    assert [line["first_epoch"] for line in lines(output, "start")] == [1, 2]
    log = (output / "run.log").read_text()
    assert ("(rank 1: KeyError" in log) == (how == "bug")
    assert differing(what_a_run_left(straight), what_a_run_left(output)) == []
    tell(f"rank 1 meets {how}, torchrun --max-restarts 1", seconds=round(time.monotonic() - began))


@pytest.mark.dist
def test_ranks_end_with_torchrun(synthetic_dir, tmp_path):
    name = script(tmp_path, "tell")
    argv = words(synthetic_dir, tmp_path / "run", **OPTIONS)
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(
            [*TORCHRUN, name, *argv], env=ENV, cwd=tmp_path, stdout=said, stderr=said
        )
        end = time.monotonic() + 200 * PATIENCE
        while not (tmp_path / "here").exists() and time.monotonic() < end:
            time.sleep(0.2)
        ranks = [pid for pid in workers_of(name) if pid != launcher.pid]
        assert len(ranks) >= 2, (tmp_path / "said").read_text()
        launcher.kill()
        launcher.wait()
    began = time.monotonic()
    while workers_of(name) and time.monotonic() - began < 60 * PATIENCE:
        time.sleep(0.1)
    left = workers_of(name)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    tell(
        "torchrun killed", ranks_and_workers=len(ranks), left_behind=len(left),
        seconds=round(time.monotonic() - began, 1),
    )  # fmt: skip
    assert not left
    assert not (tmp_path / "run" / ".lock").exists()


@dataclass(frozen=True)
class Stopping(VideoReader):
    """Stops its process when it comes to a video."""

    at: str = ""

    def _read(self, path: str, *args: Any) -> Any:
        if path.endswith(self.at):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super()._read(path, *args)


def with_a_worker_that_stops(argv: list[str], video: str) -> None:
    """Train; a loader's worker is stopped when it comes to a video."""
    real = module.construct_loader

    def construct(cfg: Any, split: str) -> Any:
        loader = real(cfg, split)
        loader.dataset.reader = Stopping(at=video)
        return loader

    module.construct_loader = construct
    command("run", argv)


def test_a_worker_that_is_stopped_is_told_with_its_video(synthetic_dir, tmp_path):
    """And is gone with the run, though it can't hear that it is to end."""
    output = tmp_path / "run"
    argv = words(synthetic_dir, output, **OPTIONS, TRAIN__WATCHDOG_MINUTES=0.05)
    video = (synthetic_dir / "train.csv").read_text().splitlines()[7].split()[0]
    args = (argv, video)
    began = time.monotonic()
    with running(with_a_worker_that_stops, *args, output=tmp_path / "said") as (run,):
        assert run.wait(100) == 70, run.said[-3000:]
        left = run.left_behind(20)
    tell("worker stopped", seconds=round(time.monotonic() - began), left_behind=len(left))
    assert not left
    log = (output / "run.log").read_text()
    assert "rank 0 has made no progress for 0." in log
    assert "the last that it began: wait for videos, epoch 1, step " in log
    assert f"{video} ({synthetic_dir}/train.csv, line 8); it ends with status 70" in log
    assert not (output / ".lock").exists()


SPAWNED = """
import os, signal, threading, time
from multiprocessing import active_children
from timesformer.config.defaults import get_cfg
from timesformer.utils import starting
from timesformer.utils.errors import run_tool

def shoot():
    while len(active_children()) < 2:
        time.sleep(0.01)
    {kill}

if __name__ == "__main__":
    threading.Thread(target=shoot, daemon=True).start()
    run_tool(lambda: starting._spawn(get_cfg(), "", print, 2))
"""


@pytest.mark.dist
@pytest.mark.parametrize(
    ("kill", "status"),
    [("os.killpg(0, signal.SIGINT)", 130), ("os.kill(os.getpid(), signal.SIGUSR1)", 75)],
)
def test_spawned_ranks_are_asked_to_stop_while_they_import(tmp_path, kill, status):
    """The first as a terminal does it. Nothing is done yet: one line, and the usual status."""
    path = tmp_path / "spawned.py"
    path.write_text(SPAWNED.replace("{kill}", kill))
    done = subprocess.run(
        [sys.executable, path], env=ENV, capture_output=True, text=True, timeout=100 * PATIENCE,
        start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr[-3000:]
    assert "it had hardly started: the same command begins, or goes on" in done.stderr


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs namespaces")
def test_a_container_with_little_shared_memory(synthetic_dir, tmp_path):
    """64 MB of /dev/shm, as Docker gives, and batches of 77 MB: a line, and no hang."""
    large = {
        "DATA__NUM_FRAMES": 32,
        "DATA__TRAIN_CROP_SIZE": 224,
        "DATA__TRAIN_JITTER_SCALES": "[224, 224]",
        "TRAIN__BATCH_SIZE": 16,
        "GLOBAL_BATCH_SIZE": 16,
        "DATA_LOADER__NUM_WORKERS": 2,
    }
    inner = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    argv = words(synthetic_dir, tmp_path / "run", **OPTIONS | large)
    line = [sys.executable, "-m", "timesformer", "run", *argv]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inner, "sh", *line],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=400 * PATIENCE,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr:.100}")
    complaint = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    tell("64 MB of /dev/shm", status=done.returncode, said=complaint)
    assert done.returncode == 2, done.stderr[-3000:]
    assert len(complaint) == 1
    assert "--shm-size" in complaint[0]
