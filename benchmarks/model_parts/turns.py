"""Contestants take turns in one process, so what slows the machine down slows all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from model_parts.rates import products

WARM_UP = 2  # runs: kernels are chosen, the optimizer makes its state


@dataclass
class Contestant:
    """Something that takes turns.

    Attributes:
        run: does it once; what it returns has to be finite.
        products: of float32 matrices, ieee or tf32.
        held: says the bytes of weights and optimizer state.
        prepare: called before a turn, outside of what is measured.
    """

    run: Callable[[], Tensor]
    products: str = "ieee"
    held: Callable[[], int] | None = None
    prepare: Callable[[], object] | None = None


@dataclass
class Measured:
    """What became of a contestant.

    Attributes:
        seconds: of one run, a number a round.
        cpu_seconds: of the cores, likewise; they leave out what others do at the time.
        first: seconds of the first run, which compiles what is compiled.
        held: bytes of weights and optimizer state.
        peak: most bytes that a run holds beside them; None where it wasn't measured.
        note: why there is nothing, or "".
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    first: float | None = None
    held: int | None = None
    peak: int | None = None
    note: str = ""

    def times(self, clock: str) -> list[float]:
        """Return the seconds by a clock, wall or cpu."""
        return self.cpu_seconds if clock == "cpu" else self.seconds


def take_turns(
    contestants: Mapping[str, Contestant],
    device: torch.device,
    rounds: int,
    turn: float = 0.0,
    memory: bool = True,
    warm_up: int = WARM_UP,
) -> dict[str, Measured]:
    """Let all run in turn, round by round; who starts a round changes.

    Args:
        contestants: by name.
        device: where they run.
        rounds: turns that each has.
        turn: seconds that a turn lasts at least: longer than starting a kernel takes.
        memory: measure what a run holds, once.
        warm_up: runs before.
    """
    found = {name: Measured() for name in contestants}
    repeats = {}
    for name, contestant in contestants.items():
        try:
            repeats[name] = _warm_up(contestant, found[name], device, (turn, memory, warm_up))
        except torch.OutOfMemoryError:
            found[name].note = "out of memory"
            gc.collect()
            torch.cuda.empty_cache()
    names = list(repeats)
    for number in range(rounds):
        shift = number % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            wall, cpu = _turn(contestants[name], device, repeats[name])
            found[name].seconds.append(wall)
            found[name].cpu_seconds.append(cpu)
    return found


def ratios(above: Measured, below: Measured, clock: str = "wall") -> list[float]:
    """Return the ratios of seconds of the same rounds, sorted; [] where one has none."""
    if not (above.seconds and below.seconds):
        return []
    return sorted(a / b for a, b in zip(above.times(clock), below.times(clock), strict=True))


def _warm_up(
    contestant: Contestant,
    found: Measured,
    device: torch.device,
    options: tuple[float, bool, int],
) -> int:
    """Run until it runs as it will, fill in what one run tells; return the runs of a turn."""
    turn, memory, runs = options
    seconds = [_turn(contestant, device, 1)[0] for _ in range(runs)]
    found.first = seconds[0]
    if memory:
        found.peak = peak_bytes(contestant, device)
    if contestant.held:
        found.held = contestant.held()
    return max(1, round(turn / seconds[-1]))


def _turn(contestant: Contestant, device: torch.device, repeats: int) -> tuple[float, float]:
    """Return the seconds that a run takes, and those of the cores.

    Raises:
        ValueError: what comes out isn't finite.
    """
    if contestant.prepare:
        contestant.prepare()
    with products(contestant.products):
        _wait_for(device)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            out = contestant.run()
        _wait_for(device)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    if not bool(out.float().isfinite().all()):
        raise ValueError("a contestant's result isn't finite: these times would mean nothing")
    return wall / repeats, cpu / repeats


def peak_bytes(contestant: Contestant, device: torch.device) -> int:
    """Return the most that torch's allocators hold in a run, beside what was there before.

    What libraries take past them, e.g. to pack weights, isn't in it.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _turn(contestant, device, 1)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        _turn(contestant, device, 1)
    results = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in results if e.name() == "[memory]")
    held = peak = 0
    for _, size in changes:
        held += size
        peak = max(peak, held)
    return peak


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
