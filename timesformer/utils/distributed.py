"""Starting processes and talking between them.

A node runs one process per GPU, or one on the CPU; a process is a rank. Four ways to start them,
told apart by `launch`: torchrun (its environment wins), SLURM's srun, NUM_GPUS / NUM_SHARDS, or
just this one.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record

from timesformer.utils.blame import (
    Blame,
    also_to,
    end_of_lost,
    of_silent,
    rank_that_tells,
    tell_error,
)
from timesformer.utils.determinism import fix_workspace
from timesformer.utils.errors import UserError
from timesformer.utils.launchers import job_in_words, tasks
from timesformer.utils.meeting import own_part
from timesformer.utils.processes import end_with_parent, end_with_torchrun, under_torchrun
from timesformer.utils.stopping import asked, noting_signals, stopped, without_interrupts
from timesformer.utils.text import counted

T = TypeVar("T")

_LOST = re.compile(
    r"gloo.*(Connection closed by peer|Connection reset by peer|Broken pipe)"
    r"|ncclRemoteError|Connection was likely closed",
    re.DOTALL,
)
TIMEOUT = timedelta(minutes=30)  # ranks wait for each other at most this long
BY_HAND = "tcp://localhost:9999"  # where nodes meet that are started by hand and aren't told where
_HOSTED = "hosted://"  # a meeting point that the process has which spawned the ranks


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


def launch(cfg: CfgNode, init_method: str, func: Callable[[CfgNode], object]) -> None:
    """Run `func(cfg)` in every process that the environment or the config asks for.

    Args:
        cfg: reads NUM_GPUS, NUM_SHARDS, SHARD_ID, DIST_BACKEND.
        init_method: where processes meet, e.g. tcp://node0:9999. "": those of one node on a free
            port, those of srun on one that follows from the job. torchrun doesn't need it.
        func: a function that can be pickled.

    Raises:
        UserError: the first that a process of this node met; it stops the others. Of ranks that
            were started one by one, each has its own; of those of a node that lose one of another
            node, or one that has said nothing, the first says so.
        SystemExit: the others of them: there is nothing to add.
        torch.multiprocessing.ProcessRaisedException: with the traceback of any other exception in
            a spawned process.
    """

    def blaming(cfg: CfgNode) -> None:
        try:
            func(cfg)
        except Exception as error:
            if is_of_another_rank(error):
                here = get_world()
                place = (here.rank, here.local_rank, here.local_size)
                raise end_of_lost(*place, one_screen=under_torchrun()) from error
            tell_error(error)
            raise

    local_size = max(1, cfg.NUM_GPUS)
    if not init_method and cfg.NUM_SHARDS > 1:
        init_method = BY_HAND
    if found := tasks(cfg.NUM_GPUS, cfg.NUM_SHARDS):
        world = World(*found[1:5], how=str(found))
        if found.by == "torchrun":
            end_with_torchrun()
            _shown_by_torchrun(lambda: _run(cfg, found.meeting, blaming, world))
        else:
            _run(cfg, init_method or found.meeting, blaming, world)
    elif local_size > 1:
        _spawn(cfg, init_method, func, local_size)
    else:
        alone = (
            f"one process in {said}, which started no others" if (said := job_in_words()) else ""
        )
        how = alone if cfg.NUM_SHARDS == 1 else "nodes are started by hand (NUM_SHARDS)"
        _run(cfg, init_method, blaming, World(cfg.SHARD_ID, cfg.NUM_SHARDS, how=how))


def _shown_by_torchrun(work: Callable[[], None]) -> None:
    """Let torchrun show the traceback of what ends a rank, but not of what is one line anyway."""
    said: list[UserError] = []

    def quietly() -> None:
        try:
            work()
        except UserError as error:
            said.append(error)

    record(quietly)()
    if said:
        raise said[0]


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


def _spawn(
    cfg: CfgNode, init_method: str, func: Callable[[CfgNode], object], local_size: int
) -> None:
    store = None
    if not init_method:  # a port is free for sure only when something listens there already
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        init_method = f"{_HOSTED}127.0.0.1:{store.port}"
    errors = mp.get_context("spawn").SimpleQueue()
    args = (cfg, init_method, func, local_size, errors)
    # It would say of each rank that it is told to end, once the first has ended.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with without_interrupts():
        ranks = mp.start_processes(_child, args, local_size, join=False, start_method="spawn")
    try:
        with noting_signals(ranks.pids()):  # they stop together, and then this process does
            _wait_for(ranks, errors, cfg.SHARD_ID * local_size)
    finally:
        del store  # it has to be there as long as the ranks are


def _wait_for(ranks: mp.ProcessContext, errors: SimpleQueue[Blame], first: int) -> None:
    """Wait for spawned ranks.

    Args:
        ranks: of this node.
        errors: what they say of their ends.
        first: number of the first of them.

    Raises:
        UserError: see `launch`.
        torch.multiprocessing.ProcessRaisedException: likewise.
    """
    try:
        while not ranks.join():
            pass
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        # One rank's error makes the others fail too, by lost connections: show the cause, once.
        if errors.empty():
            early = stopped("it had hardly started: the same command begins, or goes on")
            silent = of_silent(ranks.processes) or (early if asked() else error)
            raise silent from None
        blame: Blame = errors.get()
        if blame.trace:
            index = blame.rank - first
            text = f"\n\n-- rank {blame.rank}:\n{blame.trace}"
            raise mp.ProcessRaisedException(text, index, ranks.pids()[index]) from None
        raise blame.error() from None


def _child(
    local_rank: int,
    cfg: CfgNode,
    init_method: str,
    func: Callable[[CfgNode], object],
    local_size: int,
    errors: SimpleQueue[Blame],
) -> None:
    end_with_parent()

    def reporting(cfg: CfgNode) -> None:
        try:
            func(cfg)
        except Exception as error:
            if is_of_another_rank(error):
                sys.exit(2)  # the other has told what it was, or can't
            tell_error(error)  # before the other ranks can notice that this one is gone
            if isinstance(error, UserError):
                sys.exit(error.status)
            raise

    rank, size = cfg.SHARD_ID * local_size + local_rank, cfg.NUM_SHARDS * local_size
    how = f"{counted(local_size, 'process', 'processes')} spawned here, one for each GPU"
    with also_to(errors.put):
        _run(cfg, init_method, reporting, World(rank, size, local_rank, local_size, how))


def _run(cfg: CfgNode, init_method: str, func: Callable[[CfgNode], object], world: World) -> None:
    global _world
    on_gpu = cfg.NUM_GPUS > 0
    if on_gpu:
        if cfg.DETERMINISTIC:
            fix_workspace()
        torch.cuda.set_device(world.local_rank)
    elif world.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // world.local_size))
    before, _world = _world, world
    try:
        if world.size > 1:
            backend = "nccl" if on_gpu else "gloo"
            _meet(backend if cfg.DIST_BACKEND == "auto" else cfg.DIST_BACKEND, init_method, world)
        with rank_that_tells(world.rank):
            func(cfg)
        # Not after an error: it would wait for ranks that wait for this one.
        if world.size > 1:
            dist.destroy_process_group()
    finally:
        _world = before


def _meet(backend: str, init_method: str, world: World) -> None:
    """Make the group of all ranks.

    Raises:
        UserError: something else listens where they were to meet.
    """
    how: dict[str, Any] = {"rank": world.rank, "world_size": world.size, "timeout": TIMEOUT}
    if init_method.startswith(_HOSTED):
        host, _, port = init_method.removeprefix(_HOSTED).rpartition(":")
        store = dist.TCPStore(host, int(port), is_master=False, timeout=TIMEOUT)
        dist.init_process_group(backend, store=store, **how)
        return
    try:
        if under_torchrun():
            store, *_ = next(dist.rendezvous(init_method, world.rank, world.size, timeout=TIMEOUT))
            store.set_timeout(TIMEOUT)
            part = own_part(store, world.rank, world.size, TIMEOUT)
            dist.init_process_group(backend, store=part, **how)
        else:
            dist.init_process_group(backend, init_method=init_method, **how)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"{init_method}: another program has this port: give all ranks another one, as "
            "--init_method tcp://HOST:PORT or, under srun, as MASTER_PORT"
        ) from error
