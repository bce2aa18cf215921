"""How often a training step makes the host wait for its device: once, for what ranks agree on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from small_run import small_cfg
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from timesformer.engine import train as module
from timesformer.engine.train import train

OPTIONS: dict[str, Any] = {
    "TRAIN__EVAL_PERIOD": 0,
    "TEST__ENABLE": False,
    "TRAIN__TRACE_STEPS": 0,
    "TRAIN__BATCH_SIZE": 4,  # two forward passes a step
    "SOLVER__MAX_EPOCH": 1,
    "SOLVER__CLIP_GRAD_L2NORM": 1.0,
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "EMA__ENABLED": True,
}
READING = {torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy}
NUMBER = torch.ops.aten._local_scalar_dense.default  # .item(), float(), bool(), an index


class _Calls(TorchFunctionMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Numbers(TorchDispatchMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is NUMBER:
            self.seen.append("a number")
        return func(*args, **(kwargs or {}))


def seen_in_steps(
    monkeypatch: pytest.MonkeyPatch, watch: Callable[[list[str]], Any]
) -> list[list[str]]:
    """Say what `watch` lists in each step of the runs that follow."""
    steps: list[list[str]] = []
    real = module.train_step

    def step(*args: Any) -> Any:
        steps.append([])
        with watch(steps[-1]):
            return real(*args)

    monkeypatch.setattr(module, "train_step", step)
    return steps


@contextmanager
def python_reads(seen: list[str]) -> Iterator[None]:
    with _Calls(seen), _Numbers(seen):
        yield


@contextmanager
def gpu_waits(seen: list[str]) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    seen += [str(one.message) for one in told if "synchroniz" in str(one.message)]


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_numbers_are_read_once_a_step(synthetic_dir, tmp_path, monkeypatch, method):
    steps = seen_in_steps(monkeypatch, python_reads)
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS, SOLVER__OPTIMIZING_METHOD=method))
    assert steps == [["tolist"]] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_a_gpu_is_waited_for_once_a_step(synthetic_dir, tmp_path, monkeypatch, amp):
    steps = seen_in_steps(monkeypatch, gpu_waits)
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS, NUM_GPUS=1, TRAIN__AMP=amp))
    each = 2 if amp == "fp16" else 1  # GradScaler asks whether the gradient overflows
    assert [len(waits) for waits in steps[1:]] == [each] * 2, steps  # the first makes its state
