"""How long a model takes, measured on noise.

A clip shape is (C, T, H, W).
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm

from timesformer.models.profiling import PeakStorages
from timesformer.utils.errors import UserError
from timesformer.utils.limits import memory_left
from timesformer.utils.text import counted


class Timing(NamedTuple):
    """Seconds of forward passes.

    Attributes:
        passes: of each pass that was measured, after the warm-up.
        on_cpu: of the CPU's cores in each of them, together: what others do at the same time
            doesn't count.
        batch: views in a pass.
        device: where.
        threads: that torch computes with on the CPU.
    """

    passes: tuple[float, ...]
    on_cpu: tuple[float, ...]
    batch: int
    device: str
    threads: int

    @property
    def seconds(self) -> float:
        """Seconds of a view: the median."""
        return statistics.median(self.passes) / self.batch

    @property
    def cpu_seconds(self) -> float:
        """Seconds of the CPU's cores for a view: the median."""
        return statistics.median(self.on_cpu) / self.batch

    @property
    def where(self) -> str:
        """Device and threads."""
        return f"{self.device}, {counted(self.threads, 'thread')}"

    def conditions(self) -> str:
        """Say how it was measured."""
        passes = counted(len(self.passes), "forward pass", "forward passes")
        return f"median of {passes} of {counted(self.batch, 'view')} after a warm-up; {self.where}"


def time_views(
    model: nn.Module,
    view_shape: tuple[int, ...],
    *,
    batch: int = 1,
    repeats: int = 5,
    within: float = math.inf,
    device: str = "cpu",
    desc: str = "",
) -> Timing:
    """Measure forward passes in evaluation mode, without gradients.

    Args:
        model: with memory for its weights, fresh or trained; it is moved to the device.
        view_shape: (C, T, H, W).
        batch: views in a forward pass.
        repeats: passes that are measured; one before them isn't.
        within: seconds after which no further pass is begun; one always is.
        device: cpu or cuda.
        desc: name on the progress bar.
    """
    where = torch.device(device)
    model = model.to(where).eval()
    clips = torch.randn(batch, *view_shape, device=where)
    passes: list[float] = []
    on_cpu: list[float] = []
    with torch.inference_mode():
        for i in tqdm(range(repeats + 1), desc=desc, disable=None, leave=False):
            if i > 1 and sum(passes[1:]) > within:
                break
            _finish(where)
            start, start_cpu = time.perf_counter(), time.process_time()
            model(clips)
            _finish(where)
            passes.append(time.perf_counter() - start)
            on_cpu.append(time.process_time() - start_cpu)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    threads = torch.get_num_threads()
    return Timing(tuple(passes[1:]), tuple(on_cpu[1:]), batch, name, threads)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_memory(
    model: nn.Module, view_shape: tuple[int, ...], batch: int = 1, device: str = "cpu"
) -> None:
    """Make sure that a model and a forward pass of it fit into the memory that is free.

    Args:
        model: on the meta device.
        view_shape: (C, T, H, W).
        batch: views in the pass.
        device: cpu or cuda.

    Raises:
        UserError: they don't.
    """
    free = free_memory(torch.device(device))
    needed = sum(p.nbytes for p in model.parameters()) + peak_bytes(model, view_shape, batch)
    if free is not None and needed > free:
        raise UserError(
            f"{counted(batch, 'view')} of {view_shape} at a time: {needed / 2**30:.1f} GiB of "
            f"memory, and {free / 2**30:.1f} are free ({device}): take fewer or smaller views"
        )


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; None where the system doesn't say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return memory_left()


def peak_bytes(model: nn.Module, view_shape: tuple[int, ...], batch: int = 1) -> int:
    """Return the greatest memory that a forward pass has at one time, its weights apart.

    Nothing is computed. What operators take for themselves while they run isn't counted.

    Args:
        model: on the meta device.
        view_shape: (C, T, H, W).
        batch: views in the pass.
    """
    model = copy.deepcopy(model).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.to_empty(device="cpu")
        clips = torch.empty(batch, *view_shape)
        with PeakStorages() as live:
            model(clips)
        return live.peak + clips.nbytes
