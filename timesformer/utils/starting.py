"""Starting the processes of a run, which meet and then do the same.

A node runs one process per GPU, or one on the CPU; a process is a rank. Four ways to start them,
told apart by `launch`: torchrun (its environment wins), SLURM's srun, NUM_GPUS / NUM_SHARDS, or
just this one.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fvcore.common.config import CfgNode
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
from timesformer.utils.distributed import World, get_world, is_of_another_rank, standing_at
from timesformer.utils.errors import UserError
from timesformer.utils.launchers import job_in_words, tasks
from timesformer.utils.meeting import own_part
from timesformer.utils.processes import end_with_parent, end_with_torchrun, under_torchrun
from timesformer.utils.stopping import asked, noting_signals, stopped, without_interrupts
from timesformer.utils.text import counted

TIMEOUT = timedelta(minutes=30)  # ranks wait for each other at most this long
BY_HAND = "tcp://localhost:9999"  # where nodes meet that are started by hand and aren't told where
_HOSTED = "hosted://"  # a meeting point that the process has which spawned the ranks


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
    on_gpu = cfg.NUM_GPUS > 0
    if on_gpu:
        if cfg.DETERMINISTIC:
            fix_workspace()
        torch.cuda.set_device(world.local_rank)
    elif world.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // world.local_size))
    with standing_at(world):
        if world.size > 1:
            backend = "nccl" if on_gpu else "gloo"
            _meet(backend if cfg.DIST_BACKEND == "auto" else cfg.DIST_BACKEND, init_method, world)
        with rank_that_tells(world.rank):
            func(cfg)
        # Not after an error: it would wait for ranks that wait for this one.
        if world.size > 1:
            dist.destroy_process_group()


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
