"""Where this process stands among those of a run, and talking between them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from fvcore.common.config import CfgNode
from torch import Tensor

from timesformer.utils.errors import UserError

T = TypeVar("T")

_LOST = re.compile(
    r"gloo.*(Connection closed by peer|Connection reset by peer|Broken pipe)"
    r"|ncclRemoteError|Connection was likely closed",
    re.DOTALL,
)


@dataclass(frozen=True)
class World:
    """Where this process stands among all.

    Attributes:
        rank: of all processes, from 0.
        size: number of all processes.
        local_rank: on this node, from 0.
        local_size: processes on this node.
        how: they were started, in words.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    how: str = field(default="", compare=False)


_world = World()


def get_world() -> World:
    """Return this process's place; a world of one where nothing was started."""
    if _world.size == 1 and dist.is_initialized():  # by a program of the reader's own
        return _with_local_place(dist.get_rank(), dist.get_world_size())
    return _world


@contextmanager
def standing_at(world: World) -> Iterator[None]:
    """Let this process have its place among all, within the block."""
    global _world
    before, _world = _world, world
    try:
        yield
    finally:
        _world = before


def get_rank() -> int:
    """Rank of this process."""
    return get_world().rank


def get_world_size() -> int:
    """Return the number of processes."""
    return get_world().size


def is_main() -> bool:
    """Return True in the one process that writes files."""
    return get_rank() == 0


def device_for(cfg: CfgNode) -> torch.device:
    """Return the device of this process: its own GPU, or the CPU if NUM_GPUS is 0."""
    if cfg.NUM_GPUS == 0:
        return torch.device("cpu")
    return torch.device("cuda", get_world().local_rank)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks, in place; the tensor must live on the ranks' devices."""
    if get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def gather_objects(value: T) -> list[T]:
    """Every rank's value, in order of rank; the values must be picklable."""
    if get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather_on_main(value: T) -> list[T] | None:
    """Every rank's value, in order of rank, in the main process; None in the others."""
    if get_world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * get_world_size() if is_main() else None
    dist.gather_object(value, values)
    return values


def from_main(value: T) -> T:
    """Return the main process's value on every rank: a decision that all must share.

    The value must be picklable; what other ranks pass is ignored.
    """
    if get_world_size() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def buffers_from_main(module: torch.nn.Module) -> None:
    """Give all ranks the main process's buffers of a module, if it has any."""
    _tensors_from_main(module.buffers())


def weights_from_main(module: torch.nn.Module) -> None:
    """Give all ranks the main process's parameters and buffers of a module."""
    _tensors_from_main(itertools.chain(module.parameters(), module.buffers()))


@torch.no_grad()
def _tensors_from_main(tensors: Iterable[Tensor]) -> None:
    if get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def together(work: Callable[[], T]) -> T:
    """Do something on every rank that may fail on one, e.g. read a file; then all fail alike.

    Else the others would wait for it, in the next exchange, until they give up.

    Raises:
        UserError: of the first rank where `work` raised one, or an OSError.
    """
    result: Any = None
    problem: UserError | None = None
    try:
        result = work()
    except UserError as error:
        problem = error
    except OSError as error:
        problem = UserError(f"{error.filename or 'a file'}: {error.strerror or error}")
    if get_world_size() == 1:
        if problem:
            raise problem
        return result
    told = gather_objects("" if problem is None else str(problem))
    first = next((rank for rank, message in enumerate(told) if message), None)
    if first is None:
        return result
    if problem and first == get_rank():
        raise problem
    raise UserError(f"{told[first]} (rank {first})")


def other_rank(value: Callable[[], object]) -> int | None:
    """Return the first rank whose value isn't the main process's, on every rank; None if all agree.

    The value must be picklable; one process alone isn't asked for it.
    """
    if get_world_size() == 1:
        return None
    told = gather_objects(value())
    return next((rank for rank, its in enumerate(told) if its != told[0]), None)


def same_everywhere(what: str, value: Callable[[], object]) -> None:
    """Make sure that all ranks have the same; where nodes have other files, they often don't.

    Args:
        what: the value is, for the message.
        value: see `other_rank`.

    Raises:
        UserError: on all ranks, if one has another.
    """
    if (other := other_rank(value)) is not None:
        raise UserError(f"rank {other} has another {what} than rank 0")


def barrier() -> None:
    """Wait for all ranks."""
    if get_world_size() > 1:
        dist.barrier()


def is_of_another_rank(error: BaseException) -> bool:
    """Tell whether an error says no more than that another rank is gone, or hung up."""
    return (
        get_world_size() > 1
        and isinstance(error, RuntimeError)
        and _LOST.search(str(error)) is not None
    )


def how_started() -> str:
    """Return in words how the ranks of this run were started, when asked for the first time.

    "" if there is nothing to say, or it was said.
    """
    global _world
    how, _world = _world.how, replace(_world, how="")
    return how


def _with_local_place(rank: int, size: int) -> World:
    """Complete a world from torchrun's variables; without them all processes are on one node."""
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    return World(rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
