"""Starting processes and talking between them.

A node runs one process per GPU, or one on the CPU; a process is a rank. Three ways to start them,
told apart by `launch`: torchrun (its environment wins), NUM_GPUS / NUM_SHARDS, or just this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fvcore.common.config import CfgNode
from torch import Tensor

from timesformer.utils.errors import UserError

TIMEOUT = timedelta(minutes=30)  # longer than any epoch's validation on one rank


@dataclass(frozen=True)
class World:
    """Where this process stands among all.

    Attributes:
        rank: of all processes, from 0.
        size: number of all processes.
        local_rank: on this node, from 0.
        local_size: processes on this node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


_world = World()


def get_world() -> World:
    """This process's place; a world of one where nothing was started."""
    return _world


def get_rank() -> int:
    """Rank of this process."""
    return _world.rank


def get_world_size() -> int:
    """Number of processes."""
    return _world.size


def is_main() -> bool:
    """True in the one process that writes files."""
    return _world.rank == 0


def device_for(cfg: CfgNode) -> torch.device:
    """The device of this process: its own GPU, or the CPU if NUM_GPUS is 0."""
    if cfg.NUM_GPUS == 0:
        return torch.device("cpu")
    return torch.device("cuda", _world.local_rank)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sums over ranks, in place; the tensor must live on the ranks' devices."""
    if _world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Waits for all ranks."""
    if _world.size > 1:
        dist.barrier()


def launch(cfg: CfgNode, init_method: str, func: Callable[[CfgNode], None]) -> None:
    """Runs `func(cfg)` in every process that the environment or the config asks for.

    Args:
        cfg: reads NUM_GPUS, NUM_SHARDS, SHARD_ID, DIST_BACKEND.
        init_method: where processes meet, e.g. tcp://node0:9999; torchrun doesn't need it.
        func: a function that can be pickled.

    Raises:
        SystemExit: with status 2 where a spawned process met a UserError (it has printed it).
    """
    local_size = max(1, cfg.NUM_GPUS)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        env = {k: int(os.environ[k]) for k in ("RANK", "WORLD_SIZE")}
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        local = World(env["RANK"], env["WORLD_SIZE"], local_rank,
                      int(os.environ.get("LOCAL_WORLD_SIZE", 1)))  # fmt: skip
        _run(cfg, "env://", func, local)
    elif local_size * cfg.NUM_SHARDS == 1:
        _run(cfg, init_method, func, World())
    elif local_size == 1:
        _run(cfg, init_method, func, World(cfg.SHARD_ID, cfg.NUM_SHARDS))
    else:
        try:
            mp.start_processes(_child, (cfg, init_method, func), local_size, start_method="spawn")
        except mp.ProcessExitedException as error:
            # A child that prints its UserError exits with 2; anything else keeps its traceback.
            if error.exit_code == 2:
                sys.exit(2)
            raise


def _child(local_rank: int, cfg: CfgNode, init_method: str, func: Callable) -> None:
    size = cfg.NUM_GPUS * cfg.NUM_SHARDS
    world = World(cfg.SHARD_ID * cfg.NUM_GPUS + local_rank, size, local_rank, cfg.NUM_GPUS)
    try:
        _run(cfg, init_method, func, world)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def _run(cfg: CfgNode, init_method: str, func: Callable[[CfgNode], None], world: World) -> None:
    global _world
    before, _world = _world, world
    if cfg.NUM_GPUS > 0:
        torch.cuda.set_device(world.local_rank)
    elif world.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world.local_size))
    try:
        if world.size > 1:
            dist.init_process_group(
                _backend(cfg),
                init_method=init_method,
                rank=world.rank,
                world_size=world.size,
                timeout=TIMEOUT,
            )
        func(cfg)
    finally:
        _world = before
        if dist.is_initialized():
            dist.destroy_process_group()


def _backend(cfg: CfgNode) -> str:
    if cfg.DIST_BACKEND != "auto":
        return cfg.DIST_BACKEND
    return "nccl" if cfg.NUM_GPUS > 0 else "gloo"
