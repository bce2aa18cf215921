"""Times, means and the estimate of the time left, under a clock that the test moves."""

from __future__ import annotations

import json
import math

import pytest

from timesformer.utils import data_wait, meters
from timesformer.utils.meters import TrainMeter, hours_minutes_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    monkeypatch.setattr(data_wait, "time", clock)
    return clock


def step(meter: TrainMeter, clock: Clock, sums: list[float], wait: float, work: float) -> None:
    meter.wait()
    clock.now += wait
    meter.data_ready()
    clock.now += work
    meter.update(sums, lr=0.1)


def test_sums_are_divided_once(clock):
    meter = TrainMeter(epoch=1, max_epoch=4, steps=3)
    step(meter, clock, [8.0, 2, 0, 4], wait=1, work=2)
    step(meter, clock, [2.0, 1, 1, 1], wait=2, work=3)
    line = meter.iter_stats(step=1)
    assert (line["split"], line["epoch"], line["iter"]) == ("train_iter", "2/4", "2/3")
    assert line["loss"] == pytest.approx(10 / 5)
    assert line["top1_err"] == pytest.approx(100 * 3 / 5)
    assert line["top5_err"] == pytest.approx(100 * 1 / 5)
    assert (line["dt"], line["dt_data"]) == (4.0, 1.5)
    assert line["eta"] == "0:00:28"  # 3 epochs of 3 steps, 2 are done, 4 s each
    assert line["lr"] == 0.1


def test_lines_are_about_the_steps_since_the_last_and_epochs_about_all(clock):
    meter = TrainMeter(epoch=0, max_epoch=1, steps=2)
    step(meter, clock, [8.0, 4, 0, 4], wait=1, work=2)
    meter.iter_stats(step=0)
    step(meter, clock, [4.0, 0, 0, 2], wait=3, work=4)
    line, epoch = meter.iter_stats(step=1), meter.epoch_stats()
    assert (line["loss"], line["top1_err"], line["dt"], line["dt_data"]) == (2.0, 0.0, 7.0, 3.0)
    assert epoch["split"] == "train_epoch"
    assert epoch["loss"] == pytest.approx(12 / 6)
    assert epoch["top1_err"] == pytest.approx(100 * 4 / 6)
    assert (epoch["dt"], epoch["dt_data"], epoch["seconds"]) == (5.0, 2.0, 10.0)
    assert epoch["eta"] == "0:00:00"


def test_what_isnt_waiting_for_data_is_not_counted_as_such(clock):
    meter = TrainMeter(epoch=0, max_epoch=1, steps=2)
    step(meter, clock, [8.0, 4, 0, 4], wait=1, work=2)
    clock.now += 5  # a checkpoint is saved
    step(meter, clock, [4.0, 0, 0, 2], wait=3, work=4)
    epoch = meter.epoch_stats()
    assert (epoch["dt"], epoch["dt_data"], epoch["step_seconds"]) == (7.5, 2.0, 15.0)
    assert (epoch["data_wait"], epoch["data_wait_first"]) == (4 / 15, 1.0)
    assert epoch["clips_per_s"] == 6 / 15


def test_an_epoch_that_is_gone_on_with_has_the_waits_of_before(clock):
    before = TrainMeter(epoch=0, max_epoch=1, steps=3)
    step(before, clock, [8.0, 4, 0, 4], wait=1, work=2)
    said = json.loads(json.dumps(before.to_json()))
    meter = TrainMeter(epoch=0, max_epoch=1, steps=3)
    meter.restore(said)
    step(meter, clock, [4.0, 0, 0, 4], wait=2, work=1)  # workers start again
    step(meter, clock, [4.0, 0, 0, 4], wait=3, work=1)
    epoch = meter.epoch_stats()
    assert (epoch["data_wait"], epoch["data_wait_first"]) == (6 / 10, 3.0)
    assert epoch["clips_per_s"] == 12 / 10
    del said["data_wait"]  # as it was written formerly
    old = TrainMeter(epoch=0, max_epoch=1, steps=3)
    old.restore(said)
    assert old.epoch_stats()["data_wait"] == 1 / 3


def test_no_steps_divides_by_nothing():
    assert math.isnan(TrainMeter(0, 1, 1).epoch_stats()["loss"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0:00:00"), (3661, "1:01:01"), (55 * 3600 + 59, "55:00:59")]
)
def test_durations(seconds, text):
    assert hours_minutes_seconds(seconds) == text
