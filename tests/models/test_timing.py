"""Seconds are measured, so tests ask for what was run, not for how long it took."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from timesformer.models import timing
from timesformer.models.timing import Timing, check_memory, peak_bytes, time_views
from timesformer.utils.errors import UserError


class Noted(nn.Module):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, 2, 1)
        self.seen: list[tuple[object, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((tuple(x.shape), self.training, torch.is_grad_enabled()))
        return self.layer(x).mean(dim=(2, 3, 4))


def test_one_pass_warms_up_and_the_others_are_measured():
    model = Noted().train()
    found = time_views(model, (3, 2, 4, 4), batch=5, repeats=3)
    assert model.seen == [((5, 3, 2, 4, 4), False, False)] * 4
    assert len(found.passes) == len(found.on_cpu) == 3
    assert (found.batch, found.device, found.threads) == (5, "CPU", torch.get_num_threads())


def test_no_pass_is_begun_when_time_is_over():
    model = Noted()
    assert len(time_views(model, (3, 1, 2, 2), repeats=9, within=0.0).passes) == 1
    assert len(model.seen) == 2


def test_a_view_takes_the_median_over_its_batch():
    found = Timing((4.0, 100.0, 2.0), (1.0, 3.0, 2.0), 2, "CPU", 1)
    assert (found.seconds, found.cpu_seconds) == (2.0, 1.0)
    said = "median of 3 forward passes of 2 views after a warm-up; CPU, 1 thread"
    assert found.conditions() == said


@pytest.mark.parametrize("batch", [1, 3])
def test_peak_is_of_what_is_alive_at_one_time(batch):
    """10 MB come in; 20 and 20 follow, by then without the 10 of before; then 40 for 20."""
    with torch.device("meta"):
        model = nn.Sequential(
            *(nn.Conv3d(a, b, 1, bias=False) for a, b in ((1, 2), (2, 2), (2, 4), (4, 1)))
        )
    size = 4 * 10 * 50 * 50
    peak = peak_bytes(model, (1, 10, 50, 50), batch)
    assert peak == batch * size * (1 + 2 + 4)  # the input is held by who calls
    assert all(p.is_meta for p in model.parameters())


def test_what_does_not_fit_is_not_run(monkeypatch):
    with torch.device("meta"):
        model = nn.Conv3d(3, 64, 1)
    view = (3, 8, 1024, 1024)
    monkeypatch.setattr(timing, "free_memory", lambda device: 2**30)
    with pytest.raises(UserError, match=r"1 view of .*: 2\.1 GiB of memory, and 1\.0 are free"):
        check_memory(model, view)
    monkeypatch.setattr(timing, "free_memory", lambda device: 2**32)
    check_memory(model, view)
    monkeypatch.setattr(timing, "free_memory", lambda device: None)  # a system that doesn't say
    check_memory(model, view)
