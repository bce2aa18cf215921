"""Worker processes that crash, hang or are killed while they read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_run import small_cfg

from timesformer.datasets.loader import VideoLoader, construct_loader
from timesformer.datasets.video.held import Board, holding, of_this_process
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.workers import worker_errors
from timesformer.utils.errors import TrainingError

if not hasattr(signal, "SIGKILL"):
    pytest.skip("kills as Unix does", allow_module_level=True)

HANGS = 600.0  # seconds


@dataclass(frozen=True)
class Crashing(VideoReader):
    """Ends its process, by a signal or with a status, at one video, and hangs at another."""

    ends: int | str = 0
    at: str = ""
    hangs_at: str = "none"

    def _read(self, path: str, *args: Any) -> Any:
        if path.endswith(self.hangs_at):
            time.sleep(HANGS)
        if path.endswith(self.at):
            if isinstance(self.ends, int):
                os._exit(self.ends)
            os.kill(os.getpid(), getattr(signal, self.ends))
            time.sleep(HANGS)
        return super()._read(path, *args)


def loader_that(data: Path, output: Path, **reader: Any) -> VideoLoader:
    """Of six videos of validation in batches of two: the second worker has the third and fourth."""
    options = {"DATA_LOADER__NUM_WORKERS": 2, "TRAIN__BATCH_SIZE": 2}
    loader = construct_loader(small_cfg(data, output, **options), "val")
    loader.dataset.reader = Crashing(**reader)
    return loader


def path_of(data: Path, row: int) -> str:
    return (data / "val.csv").read_text().splitlines()[row].split()[0]


def loads_to_the_end(loader: VideoLoader) -> str:
    began = time.monotonic()
    with pytest.raises(TrainingError) as caught, worker_errors(loader):
        for _ in loader:
            pass
    assert time.monotonic() - began < HANGS / 2
    assert len(loader.crew.processes) == 2
    assert not any(worker.is_alive() for worker in loader.crew.processes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("ends", "how", "advice"),
    [
        (3, "has ended with status 3", "timesformer check-data"),
        ("SIGSEGV", "was killed by SIGSEGV", "timesformer check-data"),
        ("SIGKILL", "was killed by SIGKILL", "where memory is full: lower DATA_LOADER"),
        ("SIGBUS", "was killed by SIGBUS", "--shm-size"),
    ],
)
def test_a_worker_that_dies_is_told_with_its_video(synthetic_dir, tmp_path, ends, how, advice):
    """While another one hangs, which neither SIGTERM nor waiting would end."""
    video, hung = path_of(synthetic_dir, 3), path_of(synthetic_dir, 0)
    loader = loader_that(synthetic_dir, tmp_path, ends=ends, at=video, hangs_at=hung)
    message = loads_to_the_end(loader)
    assert message.startswith("loader worker 1 (process ")
    assert f") {how} while it read " in message
    assert f"{video} ({synthetic_dir}/val.csv, line 4). " in message
    assert advice in message


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_however_workers_are_started(synthetic_dir, tmp_path, method):
    video = path_of(synthetic_dir, 3)
    loader = loader_that(synthetic_dir, tmp_path, ends="SIGSEGV", at=video)
    loader.multiprocessing_context = method
    assert f"killed by SIGSEGV while it read {synthetic_dir}" in loads_to_the_end(loader)


def test_an_error_of_the_main_process_leaves_no_worker(synthetic_dir, tmp_path):
    """Those that are busy would be waited for, and would ignore that they are to end."""
    loader = loader_that(synthetic_dir, tmp_path, at="none", hangs_at=path_of(synthetic_dir, 5))

    def fails() -> None:
        with worker_errors(loader, None):
            for _ in loader:
                raise ZeroDivisionError

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        fails()
    assert time.monotonic() - began < HANGS / 2
    assert not any(worker.is_alive() for worker in loader.crew.processes)


def test_a_board_has_what_each_process_reads():
    board = Board(2)
    assert [said.process for said in board.said()] == [0, 0]
    long = "a" * 5000 + "/ü\udcff.mp4"
    before = of_this_process()
    with holding(long):
        held = of_this_process()
        assert (held.process, held.begun) == (os.getpid(), before.begun + 1)
        assert held.path.endswith("a/ü\udcff.mp4")
    assert of_this_process() == (os.getpid(), before.begun + 1, "")
