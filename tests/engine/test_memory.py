"""What is said where memory doesn't suffice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_run import small_cfg

from timesformer.config.defaults import get_cfg
from timesformer.engine import evaluate
from timesformer.engine import train as module
from timesformer.engine.memory import is_out_of_memory, memory_errors
from timesformer.engine.train import train
from timesformer.utils.errors import TrainingError

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has …")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")


def message(cfg: Any, part: str, error: BaseException) -> str:
    with pytest.raises(TrainingError) as caught, memory_errors(cfg, part):
        raise error
    return str(caught.value)


def test_a_run_that_has_too_little_memory(synthetic_dir, tmp_path, monkeypatch):
    def step(*args: Any) -> None:
        raise GPU

    monkeypatch.setattr(module, "train_step", step)
    expected = r"^out of memory.*: set TRAIN\.BATCH_SIZE 4 instead of 8 \(GLOBAL_BATCH_SIZE 8 keeps"
    with pytest.raises(TrainingError, match=expected):
        train(small_cfg(synthetic_dir, tmp_path))
    log = (tmp_path / "run.log").read_text()
    assert "TIMESFORMER.ACT_CHECKPOINT True, or TRAIN.AMP bf16 (CUDA out of memory. Tried" in log
    assert "Traceback" not in log


def test_a_test_that_has_too_little_memory(synthetic_dir, tmp_path, monkeypatch):
    def fails(cfg: Any) -> None:
        raise GPU

    monkeypatch.setattr(evaluate, "_test", fails)
    with pytest.raises(TrainingError, match=r"set TEST\.BATCH_SIZE 3 instead of 6, or TEST\.AMP"):
        evaluate.test(small_cfg(synthetic_dir, tmp_path))


def test_what_is_advised(synthetic_dir, tmp_path, monkeypatch):
    def cfg(**changes: Any) -> Any:
        return small_cfg(synthetic_dir, tmp_path, **changes)

    least = {"TRAIN__BATCH_SIZE": 1, "TIMESFORMER__ACT_CHECKPOINT": True, "TRAIN__AMP": "bf16"}
    assert "TRAIN.BATCH_SIZE is the least" in message(cfg(**least), "TRAIN", GPU)
    # halves that pairs, samples and the global batch can share
    three = {"GLOBAL_BATCH_SIZE": 36, "TRAIN__BATCH_SIZE": 18, "MIXUP__ENABLED": True}
    assert "BATCH_SIZE 6 instead of 18 " in message(cfg(**three), "TRAIN", GPU)
    every = {"GLOBAL_BATCH_SIZE": 0, "TRAIN__BATCH_SIZE": 8}
    assert "GLOBAL_BATCH_SIZE 8 with it keeps" in message(cfg(**every), "TRAIN", GPU)
    cnn = cfg()
    cnn.MODEL.MODEL_NAME = "slow_r50"
    cnn.TIMESFORMER = get_cfg().TIMESFORMER
    assert "ACT_CHECKPOINT" not in message(cnn, "TRAIN", GPU)
    workers = cfg(DATA_LOADER__NUM_WORKERS=4)
    assert "or DATA_LOADER.NUM_WORKERS below 4 ([enforce" in message(workers, "TRAIN", CPU)
    workers.NUM_GPUS = 1
    assert "memory: set DATA_LOADER.NUM_WORKERS 2 (" in message(workers, "TRAIN", CPU)
    auto = cfg(DATA_LOADER__NUM_WORKERS="auto")
    fewer = "DATA_LOADER.NUM_WORKERS to a number below what the log says that auto took ("
    assert f"or {fewer}" in message(auto, "TRAIN", CPU)
    auto.NUM_GPUS = 1
    assert f"memory: set {fewer}" in message(auto, "TRAIN", CPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60 * 2**30)
    held = "(cuda:0 has 80.0 GiB, of which this process holds 60.0 and others 19.0)"
    assert held in message(workers, "TEST", GPU)


def test_which_errors_are_of_memory() -> None:
    assert all(map(is_out_of_memory, (GPU, CPU, MemoryError(), RuntimeError("std::bad_alloc"))))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(OSError("no memory"))
    with pytest.raises(KeyError), memory_errors(None, "TRAIN"):  # type: ignore[arg-type]
        raise KeyError
