"""Runs that are cut within an epoch: by a kill, or because they are asked to stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from children import finish, running
from small_run import small_cfg, stats

from timesformer.commands.run import run
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.engine import scoring
from timesformer.engine import train as module
from timesformer.engine.train import train
from timesformer.utils import stopping
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_checkpoint,
    numbered_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from timesformer.utils.distributed import get_rank
from timesformer.utils.errors import ConfigError, Stopped, WeightsError
from timesformer.utils.starting import launch

# 24 videos in steps of 8: 3 steps an epoch, 6 in all. Everything random is on.
RANDOM: dict[str, Any] = {
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "EMA__ENABLED": True,
    "EMA__WARMUP": True,
    "TRAIN__TUBE_KEEP": 0.5,  # in the first of two epochs
    "DATA__NUM_SAMPLES": 2,
    "GLOBAL_BATCH_SIZE": 16,
    "TRAIN__BATCH_SIZE": 16,
    "TRAIN__CHECKPOINT_STEPS": 1,
    "TEST__ENABLE": False,
}


class Cut(Exception):  # noqa: N818
    """The machine goes down."""


def left(output: Path) -> dict[str, Any]:
    """What must be equal of two runs."""
    content = read_checkpoint(get_last_checkpoint(output))
    said = {(s["epoch"], s["iter"]): s["loss"] for s in stats(output, "train_iter")}
    epochs = {s["epoch"]: (s["loss"], s["top1_err"]) for s in stats(output, "train_epoch")}
    kept = ("epoch", "model_state", "optimizer_state", "preprocessing", "train_list")
    kept = (*kept, "ema_state", "ema_updates")
    return {key: content[key] for key in kept} | {"steps": said, "epochs": epochs}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], None]) -> None:
    """Let something happen before the n-th step (from 1) of the next runs."""
    real, done = module.train_step, []

    def step(*args: Any) -> Any:
        done.append(0)
        if len(done) == number:
            do()
        return real(*args)

    monkeypatch.setattr(module, "train_step", step)


def cut() -> None:
    raise Cut


@pytest.fixture(scope="module")
def straight(synthetic_dir, tmp_path_factory) -> Callable[[int], dict[str, Any]]:
    """What a run that nothing cuts has left, by the number of forward passes of a step."""
    made: dict[int, dict[str, Any]] = {}

    def run_it(accumulation: int) -> dict[str, Any]:
        if accumulation not in made:
            output = tmp_path_factory.mktemp("straight")
            options = RANDOM | {"TRAIN__BATCH_SIZE": 16 // accumulation}
            train(small_cfg(synthetic_dir, output, **options, TRAIN__CHECKPOINT_PERIOD=1))
            made[accumulation] = left(output)
        return made[accumulation]

    return run_it


@pytest.mark.parametrize(
    ("step", "workers", "accumulation"),
    [(2, 0, 1), (3, 2, 1), (4, 0, 1), (5, 0, 2), (6, 0, 1)],
)
def test_a_run_cut_before_any_step_equals_the_straight_one(
    synthetic_dir, tmp_path, monkeypatch, straight, step, workers, accumulation
):
    options = RANDOM | {
        "TRAIN__BATCH_SIZE": 16 // accumulation,
        "DATA_LOADER__NUM_WORKERS": workers,
    }
    expected = straight(accumulation)
    with monkeypatch.context() as patch:
        before_step(patch, step, cut)
        with pytest.raises(Cut):
            train(small_cfg(synthetic_dir, tmp_path, **options))
    asked: list[Any] = []
    real = VideoDataset.__getitems__
    monkeypatch.setattr(
        VideoDataset, "__getitems__", lambda self, keys: asked.extend(keys) or real(self, keys)
    )
    train(small_cfg(synthetic_dir, tmp_path, **options))
    start = stats(tmp_path, "start")[-1]
    assert 3 * (start["first_epoch"] - 1) + start["first_step"] == step
    assert same(left(tmp_path), expected)
    if not workers:  # else they ask in another process
        trained = [key for key in asked if isinstance(key, tuple)]
        assert len(trained) == 8 * (7 - step), "videos of steps that are done were read"


def test_a_run_of_growing_clips_is_cut_before_each_of_its_steps(
    synthetic_dir, tmp_path, monkeypatch
):
    """TRAIN.MULTIGRID: steps of an epoch differ in number, in batch and in the size of clips."""
    options = RANDOM | {"TRAIN__MULTIGRID": "both", "SOLVER__MAX_EPOCH": 3}
    options |= {"TRAIN__BATCH_SIZE": 2, "GLOBAL_BATCH_SIZE": 4}
    train(small_cfg(synthetic_dir, tmp_path / "straight", **options))
    places = [(s["epoch"], s["iter"]) for s in stats(tmp_path / "straight", "train_iter")]
    assert places[:3] == [("1/3", "1/1"), ("2/3", "1/2"), ("2/3", "2/2")]
    assert len(places) == 1 + 2 + 12
    for _ in range(2):
        with monkeypatch.context() as patch:
            before_step(patch, 3, cut)
            with pytest.raises(Cut):
                train(small_cfg(synthetic_dir, tmp_path / "cut", **options))
    train(small_cfg(synthetic_dir, tmp_path / "cut", **options))
    starts = [(s["first_epoch"], s["first_step"]) for s in stats(tmp_path / "cut", "start")]
    assert starts == [(1, 1), (2, 2), (3, 2)]
    assert same(left(tmp_path / "cut"), left(tmp_path / "straight"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_is_a_checkpoint_and_the_same_command_goes_on(
    synthetic_dir, tmp_path, monkeypatch, straight, name
):
    number = getattr(signal, name)
    options = RANDOM | {"TRAIN__CHECKPOINT_STEPS": 0}
    step = {"SIGTERM": 2, "SIGUSR1": 3, "SIGINT": 4}[name]  # of an epoch the middle, last, first
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped, match=f"^{name}: saved after .*same command") as end:
            train(small_cfg(synthetic_dir, tmp_path, **options))
    assert end.value.status == (130 if name == "SIGINT" else 75)
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    train(small_cfg(synthetic_dir, tmp_path, **options))
    assert same(left(tmp_path), straight(1))


def test_a_signal_in_validation_loses_nothing(synthetic_dir, tmp_path, monkeypatch, straight):
    options = RANDOM | {"TRAIN__CHECKPOINT_STEPS": 0, "TRAIN__CHECKPOINT_PERIOD": 9}
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "asked", lambda: "SIGTERM")
        with pytest.raises(Stopped, match="validation 1 was cut short"):
            train(small_cfg(synthetic_dir, tmp_path, **options))
    assert get_last_checkpoint(tmp_path) == get_path_to_checkpoint(tmp_path, 1)
    train(small_cfg(synthetic_dir, tmp_path, **options))
    assert same(left(tmp_path), straight(1))
    assert [line["epoch"] for line in stats(tmp_path, "val")] == ["1/2", "2/2"]


def test_a_test_that_is_cut_short_ends_as_asked(synthetic_dir, tmp_path, monkeypatch):
    options = RANDOM | {"TEST__ENABLE": True, "SOLVER__MAX_EPOCH": 1, "TRAIN__EVAL_PERIOD": 0}
    monkeypatch.setattr(scoring, "asked", lambda: "SIGTERM")
    with pytest.raises(Stopped, match="test was cut short"):
        run(small_cfg(synthetic_dir, tmp_path, **options, SOLVER__WARMUP_EPOCHS=0))
    assert not stats(tmp_path, "test_final")


def test_the_clock_saves_too(synthetic_dir, tmp_path, monkeypatch):
    options = RANDOM | {"TRAIN__CHECKPOINT_STEPS": 0, "TRAIN__CHECKPOINT_MINUTES": 1e-9}
    before_step(monkeypatch, 3, cut)
    with pytest.raises(Cut):
        train(small_cfg(synthetic_dir, tmp_path, **options))
    names = [path.name for path in numbered_checkpoints(tmp_path)]
    assert names == [
        "checkpoint_epoch_00000_step_0000002.pyth",
        "checkpoint_epoch_00000_step_0000001.pyth",
    ]


@pytest.mark.parametrize("batch", [8, 4])
def test_other_forward_passes_go_on_with_the_same_step(
    synthetic_dir, tmp_path, monkeypatch, straight, batch
):
    """Same clips, same DropPath, same mixup: only the order of sums is another."""
    with monkeypatch.context() as patch:
        before_step(patch, 2, cut)
        with pytest.raises(Cut):
            train(small_cfg(synthetic_dir, tmp_path, **RANDOM))
    train(small_cfg(synthetic_dir, tmp_path, **RANDOM | {"TRAIN__BATCH_SIZE": batch}))
    expected, found = straight(1)["steps"], left(tmp_path)["steps"]
    assert found.keys() == expected.keys()
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-6)


def test_checkpoints_within_epochs_make_room(tmp_path):
    def write(*places: tuple[int, int]) -> list[str]:
        for place in places:
            path = get_path_to_checkpoint(tmp_path, *place)
            write_checkpoint(path, {"epoch": place[0] - 1, "step": place[1]})
            prune_checkpoints(tmp_path, 2, path)
        return [path.stem[len("checkpoint_epoch_") :] for path in numbered_checkpoints(tmp_path)]

    assert write((0, 5), (0, 10), (0, 15)) == ["00000_step_0000015", "00000_step_0000010"]
    assert write((1, 0)) == ["00001", "00000_step_0000015"]
    assert write((1, 5)) == ["00001_step_0000005", "00001"]
    assert write((1, 10), (2, 0), (3, 0)) == ["00003", "00002"]


@pytest.mark.parametrize("step", [-1, True, "3", 10**12, 1.0])
def test_a_checkpoint_of_no_step_is_refused(synthetic_dir, tmp_path, step):
    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=1, SOLVER__WARMUP_EPOCHS=0))
    path = get_last_checkpoint(tmp_path)
    write_checkpoint(path, read_checkpoint(path) | {"step": step})
    with pytest.raises(WeightsError, match=r"its step is .*, not a number of steps"):
        train(small_cfg(synthetic_dir, tmp_path))


def test_a_last_epoch_that_is_lowered(synthetic_dir, tmp_path):
    """The cosine would rise again after its end; whole epochs are there, and the log says so."""
    options = {"SOLVER__MAX_EPOCH": 2, "SOLVER__WARMUP_EPOCHS": 0, "TRAIN__EVAL_PERIOD": 0}
    train(small_cfg(synthetic_dir, tmp_path, **options, TRAIN__CHECKPOINT_STEPS=2))
    lower = options | {"SOLVER__MAX_EPOCH": 1}
    train(small_cfg(synthetic_dir, tmp_path, **lower))
    said = "2 epochs are done, and SOLVER.MAX_EPOCH is 1: nothing is trained"
    assert said in (tmp_path / "run.log").read_text()
    get_path_to_checkpoint(tmp_path, 2).unlink()
    with pytest.raises(ConfigError, match=r"is of step 2 of epoch 2, and .* is 1: set it to 2 or"):
        train(small_cfg(synthetic_dir, tmp_path, **lower))
    assert len(stats(tmp_path, "train_epoch")) == 2


def test_ctrl_c_twice_ends_at_once(monkeypatch, capfd):
    monkeypatch.setattr(stopping, "ONE_CTRL_C", 0.0)
    with stopping.noting_signals(told=True):
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.asked() == "SIGINT"
        assert "a second one ends at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not stopping.asked()


def stop_one(data: Path, output: Path) -> None:
    """Train on two ranks; rank 1 alone is asked to stop, before its second step."""
    real, done = module.train_step, []

    def step(*args: Any) -> Any:
        done.append(0)
        if len(done) == 2 and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    module.train_step = step
    options = RANDOM | {"TRAIN__CHECKPOINT_STEPS": 0}
    launch(small_cfg(data, output, **options), "unused", train)


@pytest.mark.dist
def test_one_rank_that_is_asked_stops_both(synthetic_dir, tmp_path, straight):
    """And one process goes on with the run of two: the order, DropPath and mixup are the same."""
    output = tmp_path / "run"
    with running(stop_one, synthetic_dir, output, output=tmp_path / "said", ranks=2) as ranks:
        ended = finish(ranks, 120)
    said = [rank.said for rank in ranks]
    assert ended == [75, 75], said
    assert "SIGTERM: saved after step 2 of epoch 1" in said[1]
    assert "another rank was asked to stop: saved after step 2 of epoch 1" in said[0]
    assert not any("Traceback" in text or "error:" in text for text in said)
    assert numbered_checkpoints(output) == [get_path_to_checkpoint(output, 0, 2)]
    train(small_cfg(synthetic_dir, output, **RANDOM))
    expected, found = straight(1)["steps"], left(output)["steps"]
    assert found.keys() == expected.keys()
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-6)


def worker(ready: Any) -> None:
    stopping.leave_signals_to_main()
    ready.set()
    while True:
        signal.pause()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_obey_the_main_process_alone(method):
    """Else one that is asked to stop with its group takes the run with it, or never ends."""
    context = multiprocessing.get_context(method)
    ready = context.Event()
    process = context.Process(target=worker, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(30)
    for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
        subprocess.run(["/bin/sh", "-c", f"kill -{name[3:]} {process.pid}"], check=True)
    process.join(0.3)
    assert process.is_alive()
    process.terminate()
    process.join(30)
    assert process.exitcode == 0
