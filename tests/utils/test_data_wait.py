"""What a model waits for videos: on a GPU by events of its stream, of several ranks the longest."""

from __future__ import annotations

import pytest
import torch

from timesformer.utils import data_wait
from timesformer.utils.data_wait import DataWait


class Gpu:
    """A stream that is busy until some time, and a clock for it and the process."""

    def __init__(self) -> None:
        self.now = self.busy_until = 0.0
        self.waits_for_it = 0

    def perf_counter(self) -> float:
        return self.now

    def event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    """Passes when all that was in the stream before it is done."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def record(self) -> None:
        self.time = max(self.gpu.now, self.gpu.busy_until)

    def query(self) -> bool:
        return self.time <= self.gpu.now

    def synchronize(self) -> None:
        self.gpu.waits_for_it += not self.query()
        self.gpu.now = max(self.gpu.now, self.time)

    def elapsed_time(self, later: Event) -> float:
        assert self.query()
        assert later.query()
        return 1e3 * (later.time - self.time)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setattr(data_wait, "time", gpu)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    return gpu


def steps(gpu: Gpu, wait: DataWait, loading: float, computing: float) -> None:
    """Four steps whose kernels are put in the stream at once, each waited for one step later."""
    done = 0.0
    for _ in range(4):
        wait.begin()
        gpu.now += loading
        wait.over()
        before, done = done, max(gpu.now, gpu.busy_until) + computing
        gpu.busy_until = done
        gpu.now = max(gpu.now, before)


@pytest.mark.parametrize(
    ("loading", "computing", "idle"), [(1.0, 4.0, 0.0), (4.0, 4.0, 0.0), (5.0, 4.0, 1.0)]
)
def test_a_gpu_that_is_busy_meanwhile_does_not_wait(gpu, loading, computing, idle):
    wait = DataWait(torch.device("cuda"))
    steps(gpu, wait, loading, computing)
    assert gpu.waits_for_it == 0
    wait.agree()
    assert wait.first == loading
    assert wait.total == pytest.approx(loading + 3 * idle)


def test_a_gpu_that_idles_for_another_reason_does_not_wait_for_videos(gpu):
    wait = DataWait(torch.device("cuda"))
    for _ in range(3):
        wait.begin()
        gpu.now += 7.0  # between the end of a step and the first kernel of the next, but ...
        wait._since = gpu.now - 0.5  # ... the process waited for videos half a second alone
        wait.over()
    wait.agree()
    assert wait.total == pytest.approx(1.5)


def test_the_slowest_rank_of_each_step_counts(monkeypatch):
    monkeypatch.setattr(data_wait, "gather_objects", lambda own: [own, [1.0, 5.0], [2.0, 0.0]])
    wait = DataWait(torch.device("cpu"))
    wait._own = [3.0, 1.0]
    wait.agree()
    assert (wait.total, wait.first) == (8.0, 3.0)
