"""Checkpoints that are written while training goes on, and disks that are full."""

from __future__ import annotations

import copy
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_cfg
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.engine import saving, state
from timesformer.engine import train as module
from timesformer.engine.best import Best
from timesformer.engine.interruption import Interruption
from timesformer.engine.saving import Saver, log_space, predicted_bytes
from timesformer.engine.train import train
from timesformer.utils.checkpoint import (
    contents,
    get_last_checkpoint,
    get_path_to_best,
    get_path_to_checkpoint,
    read_checkpoint,
)
from timesformer.utils.errors import Stopped, WeightsError

ONE: dict[str, Any] = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0, "TEST__ENABLE": False}


def saver(folder: Path, background: bool = True, policy: str = "go_on") -> Saver:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    cfg.TRAIN.CHECKPOINT_ASYNC, cfg.TRAIN.ON_FAILED_SAVE = background, policy
    return Saver(cfg, Interruption(cfg))


def stepped(kind: type[torch.optim.Optimizer] = torch.optim.AdamW, **options: Any):
    """A model whose layers share numbers, and an optimizer after a step."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight = model[0].weight
    optimizer = kind(model.parameters(), lr=0.1, **options)
    return model, optimizer, lambda: (model(torch.ones(1, 64)).sum().backward(), optimizer.step())


class Disk:
    """Stands before the writing of checkpoints: is full a few times, or waits until it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full: Callable[[Path], bool] = lambda path: False
        self.may, self.began = threading.Event(), threading.Event()
        self.may.set()
        self.asked: list[str] = []
        real = saving.write_checkpoint

        def write(path: Path, payload: Any) -> None:
            self.asked.append(path.name)
            self.began.set()
            assert self.may.wait(60)
            if self.full(path):
                cause = OSError(errno.ENOSPC, "No space left on device")
                raise WeightsError(f"{path}: can't write") from cause
            real(path, payload)

        monkeypatch.setattr(saving, "write_checkpoint", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_what_is_written_is_the_state_of_that_moment(tmp_path, disk):
    """To the byte what a save writes that training waits for, whatever training does meanwhile."""
    model, optimizer, step = stepped()
    step()
    path = get_path_to_checkpoint(tmp_path, 1)
    files = []
    for background in (False, True, True):  # the second copy in memory that was used before
        with saver(tmp_path, background) as writes:
            if background:
                disk.may.clear()
            writes.save(path, contents(model, optimizer, 0, get_cfg()))
            if background:
                before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
                step()
                assert not path.exists()
                disk.may.set()
                writes.wait()
                model.load_state_dict(before[0])
                optimizer.load_state_dict(before[1])
        files.append(path.read_bytes())
        path.unlink()
    assert files[0] == files[1] == files[2]


def test_one_write_at_a_time_and_the_end_waits(tmp_path, disk):
    first, second = get_path_to_checkpoint(tmp_path, 1), get_path_to_checkpoint(tmp_path, 2)
    disk.may.clear()
    with saver(tmp_path) as writes:
        writes.save(first, {"epoch": 0})
        assert disk.began.wait(10)
        threading.Timer(0.2, disk.may.set).start()
        writes.save(second, {"epoch": 1})
        assert first.exists(), "two writes at once"
    assert second.exists()


def test_a_run_that_fails_leaves_what_it_has_saved(synthetic_dir, tmp_path, monkeypatch, disk):
    disk.may.clear()

    def fail(*_: Any) -> None:
        assert disk.began.wait(10)
        threading.Timer(0.2, disk.may.set).start()
        raise ZeroDivisionError

    monkeypatch.setattr(module, "eval_epoch", fail)
    with pytest.raises(ZeroDivisionError):
        train(small_cfg(synthetic_dir, tmp_path, **ONE))
    assert get_last_checkpoint(tmp_path) == get_path_to_checkpoint(tmp_path, 1)


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_ends_no_training(
    synthetic_dir, tmp_path, monkeypatch, disk, capsys, background
):
    """It says so, and saves again within the epoch; what it leaves is what it would have left."""
    options = {"SOLVER__MAX_EPOCH": 2, "TRAIN__CHECKPOINT_ASYNC": background}
    train(small_cfg(synthetic_dir, tmp_path / "straight", **options))
    monkeypatch.setattr(saving, "AGAIN", 0.0)
    names = disk.asked[:]
    disk.asked.clear()
    disk.full = lambda path: len(disk.asked) <= 2  # the first epoch, and the best
    train(small_cfg(synthetic_dir, tmp_path / "full", **options))
    assert names == ["checkpoint_epoch_00001.pyth", "checkpoint_best.pyth",
                     "checkpoint_epoch_00002.pyth"]  # fmt: skip
    assert disk.asked[:3] == [*names[:2], "checkpoint_epoch_00001_step_0000001.pyth"]
    assert "training goes on (TRAIN.ON_FAILED_SAVE)" in capsys.readouterr().out
    ours, theirs = (get_last_checkpoint(tmp_path / name) for name in ("full", "straight"))
    assert ours.name == theirs.name == "checkpoint_epoch_00002.pyth"
    weights = [read_checkpoint(path)["model_state"] for path in (ours, theirs)]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_a_full_disk_ends_a_run_that_is_to_stop(synthetic_dir, tmp_path, monkeypatch, disk):
    """After the step at most that is under way."""
    disk.full = lambda path: True
    steps = []
    real = module.train_step

    def step(*args: Any) -> Any:
        if len(steps) == 3:  # the second epoch begins, and the write of the first is over
            disk.may.set()
            saving_threads = [t for t in threading.enumerate() if "_write" in t.name]
            [thread.join() for thread in saving_threads]
        steps.append(0)
        return real(*args)

    monkeypatch.setattr(module, "train_step", step)
    options = {"TRAIN__ON_FAILED_SAVE": "stop", "TRAIN__EVAL_PERIOD": 0}
    with pytest.raises(WeightsError, match=r"epoch_00001\.pyth: can't write"):
        train(small_cfg(synthetic_dir, tmp_path, **options))
    assert len(steps) == 4


def test_the_last_checkpoint_is_waited_for(synthetic_dir, tmp_path, monkeypatch, disk):
    options = ONE | {"TRAIN__EVAL_PERIOD": 0}
    monkeypatch.setattr(state, "pause", lambda: True)
    disk.full = lambda path: len(disk.asked) < 4
    train(small_cfg(synthetic_dir, tmp_path / "a", **options))
    assert disk.asked == ["checkpoint_epoch_00001.pyth"] * 4
    said = (tmp_path / "a" / "run.log").read_text()  # once each, not at every try
    assert (said.count("saves again in"), said.count("waiting 10 minutes")) == (1, 1)
    disk.full = lambda path: True
    with pytest.raises(WeightsError, match=r"epoch_00001\.pyth: can't write"):
        train(small_cfg(synthetic_dir, tmp_path / "b", **options))
    monkeypatch.setattr(state, "pause", lambda: False)  # asked to stop
    disk.asked.clear()
    with pytest.raises(WeightsError):
        train(small_cfg(synthetic_dir, tmp_path / "c", **options))
    assert len(disk.asked) == 1


def test_a_stop_that_could_not_be_saved_says_so(synthetic_dir, tmp_path, monkeypatch, disk):
    disk.full = lambda path: True
    monkeypatch.setattr("timesformer.engine.interruption.asked", lambda: "SIGTERM")
    with pytest.raises(Stopped, match=r"not saved: .*can't write.* the newest"):
        train(small_cfg(synthetic_dir, tmp_path, **ONE))


def test_a_best_that_is_lost_lets_the_next_best_in(tmp_path, disk):
    """Not only what is better than the one that couldn't be written."""
    model, optimizer, _ = stepped()
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)

    class Run:
        val_list, epoch = "", 0

    run: Any = Run()
    run.cfg, run.saver = cfg, saver(tmp_path)

    def save(run: Any, epoch: int, validation: Any) -> None:
        payload = contents(model, optimizer, epoch, cfg, validation=validation)
        run.saver.save(get_path_to_best(tmp_path), payload)

    best = Best(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timesformer.engine.best.save", save)
        kept = []
        for epoch, top1 in enumerate([50.0, 90.0, 60.0, 55.0, 70.0]):
            disk.full = lambda path, top1=top1: top1 == 90.0  # type: ignore[misc]
            best.update(epoch, {"top1_acc": top1})
            run.saver.wait()
            kept.append(read_checkpoint(get_path_to_best(tmp_path))["validation"]["top1_acc"])
    assert kept == [50.0, 50.0, 60.0, 60.0, 70.0]
    assert (best.epoch, best.value) == (1, 90.0)  # patience is with what was seen


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})],
)
def test_size_is_known_before_the_first_step(tmp_path, kind, options):
    model, optimizer, step = stepped(kind, **options)
    predicted = predicted_bytes(model, optimizer)
    step()
    assert predicted == pytest.approx(predicted_bytes(model, optimizer), rel=1e-3)
    with saver(tmp_path) as writes:
        writes.save(tmp_path / "a.pyth", contents(model, optimizer, 0, get_cfg()))
    overhead = 20_000  # the config's text, names, headers
    assert predicted < (tmp_path / "a.pyth").stat().st_size < predicted + overhead


def test_a_disk_without_room_is_told_at_the_start(tmp_path, monkeypatch, caplog):
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_EPOCH, cfg.TRAIN.KEEP_CHECKPOINTS = str(tmp_path), 9, 3
    free = [10_000]
    monkeypatch.setattr(
        saving.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[0]})
    )
    log_space(cfg, 1_000)  # three, the best, and one more: 5,250
    assert not caplog.text
    free[0] = 5_000
    log_space(cfg, 1_000)
    assert "5,000 free bytes, and 5 checkpoints of 1,000 bytes need 5,250 more" in caplog.text
    caplog.clear()
    path = get_path_to_checkpoint(tmp_path, 1)
    path.parent.mkdir()
    path.write_bytes(bytes(1_000))  # makes room for others
    log_space(cfg, 1_000)
    assert not caplog.text


def test_superseded_checkpoints_go_but_not_the_new_one_of_that_name(tmp_path):
    model, optimizer, _ = stepped()
    superseded = [get_path_to_checkpoint(tmp_path, 1, step) for step in (5, 10)]
    with saver(tmp_path) as writes:
        for path in superseded:
            writes.save(path, contents(model, optimizer, 0, get_cfg(), step=1))
        writes.wait()
        writes.superseded = superseded
        writes.save(superseded[0], contents(model, optimizer, 0, get_cfg(), step=5))
    assert [path.name for path in superseded[0].parent.iterdir()] == [superseded[0].name]
