"""Shared fixtures: repeatable randomness, the golden files, and the folder of real videos."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Before torch is there: threads of several tests that wait for the same cores take five times
    # as long as one thread each.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
import torch

for name in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[name]  # the tests' runs aren't tasks of the job that the tests may run in

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As shells start what runs in the background; tests of Ctrl-C need what a terminal has.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
SHARED_VIDEOS = ROOT.parent / "shared" / "videos"


@pytest.fixture(autouse=True)
def rng_guard() -> Iterator[None]:
    """Every test starts from the same seeds and leaves the global generators as it found them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (timm draws from the global generator)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@pytest.fixture(autouse=True)
def logger_guard() -> Iterator[None]:
    """A run in this process keeps its lines from caplog; the next test finds them there again.

    Also where it ran in a fixture of a whole file, before this one.
    """
    _reset_logger()
    yield
    _reset_logger()


def _reset_logger() -> None:
    logger = logging.getLogger("timesformer")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def make_fifo() -> Callable[[Path], None]:
    """What makes a named pipe; skips where the system has none."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    return os.mkfifo


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden numbers made with the published implementation."""
    return DATA


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """Folder of real video files; they aren't part of the repository."""
    if not SHARED_VIDEOS.is_dir():
        pytest.skip("needs the real videos in ../shared/videos")
    return SHARED_VIDEOS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What a test has logged may hold names that aren't text; pytest-xdist can't hand them over."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        # Not `"gpu" in item.keywords`: these hold folders too, and a checkout may lie in gpu/.
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Synthetic dataset: 24 training, 6 validation and 12 test videos."""
    from timesformer.prepare.synthetic_writer import SyntheticSpec, write_dataset

    folder = tmp_path_factory.mktemp("synthetic")
    write_dataset(folder, SyntheticSpec(seed=0, train=24, val=6, test=12), processes=1)
    return folder
