"""DATA_LOADER.NUM_WORKERS auto: how many processes read for a rank."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from timesformer.utils.distributed import gather_objects, get_world
from timesformer.utils.limits import cpu_quota, memory_left
from timesformer.utils.processes import usable_cores
from timesformer.utils.text import counted

WORKER_BYTES = 300 << 20  # that a worker has of its own, beside batches; 150 with 1080p files
SHARE = 4  # a loader plans with a quarter of the free memory: there are others, and models
SHARED_MEMORY = "/dev/shm"  # through which workers hand over their batches


class Demand(NamedTuple):
    """What a loader's workers hold.

    Attributes:
        batch_bytes: of one batch.
        ahead: batches that each keeps ready, beside the one that it makes.
        batches: of a pass: more workers have nothing to do.
    """

    batch_bytes: int
    ahead: int
    batches: int


def cores_of_rank() -> float:
    """Return the cores that this rank has; one that it shares with n - 1 others is 1 / n of a core.

    All ranks call it together. Some launchers give each rank cores of its own, others all to all.
    """
    world, mine = get_world(), usable_cores()
    node = world.rank - world.local_rank
    everyone = gather_objects((node, mine))
    sharing = Counter(core for place, theirs in everyone if place == node for core in theirs)
    share = sum(1 / max(1, sharing[core]) for core in mine)
    quota = cpu_quota()
    return share if quota is None else min(share, quota / world.local_size)


def auto_workers(cores: float, demand: Demand) -> tuple[int, str]:
    """Choose how many processes read for a rank.

    One core is left to the process that trains; there is a worker all the same where there is one
    core only, since it reads while a GPU computes.

    Args:
        cores: that the rank has.
        demand: of its loader.

    Returns:
        The number, and why it is that, in words.
    """
    ranks = get_world().local_size
    share = f" for each of {ranks} ranks" if ranks > 1 else ""
    limits = [
        (max(1, math.floor(cores + 1e-6) - 1), f"{cores:.3g} cores{share}, one of them to train")
    ]
    if (left := memory_left()) is not None:
        each = WORKER_BYTES + (demand.ahead + 1) * demand.batch_bytes
        gib = f"{left / 2**30:.1f} GiB of memory are free, a worker takes {each / 2**30:.2f}"
        limits.append((left // SHARE // ranks // each, gib))
    with suppress(OSError):
        free, ready = shutil.disk_usage(SHARED_MEMORY).free, demand.ahead * demand.batch_bytes
        mib = f"{SHARED_MEMORY} has {free / 2**20:,.0f} MiB, a worker takes {ready / 2**20:,.0f}"
        limits.append((free // 2 // ranks // max(1, ready), mib))
    limits.append((demand.batches, counted(demand.batches, "batch", "batches")))
    return min(limits, key=lambda limit: limit[0])
