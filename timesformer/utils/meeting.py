"""Where ranks meet that torchrun starts again: in a part of its store that no former ones knew.

torchrun (2.14) gives all attempts the same store. What former ranks have left in it, the addresses
at which they listened and the error that ended them, would be taken for that of the new ones.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import torch.distributed as dist

_CALL = "timesformer/call"
PAUSE = 0.05  # seconds between two looks


def own_part(store: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return a part of a store that all ranks of this attempt have, and nobody else.

    Rank 0 calls, the others answer, and it says whose answers it has: so a rank that has answered
    the call of a former attempt notices. The number of the attempt would not do: each node counts
    its own.

    Args:
        store: all attempts have it.
        rank: of this process.
        size: number of ranks.
        timeout: for the others to come.

    Raises:
        torch.distributed.DistError: they don't.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set(_CALL, mine)
        answers = [store.get(f"{mine}/{other}").decode() for other in range(1, size)]
        store.set(f"{mine}/all", " ".join(answers))
        return dist.PrefixStore(mine, store)
    end = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < end:
        call = store.get(_CALL).decode()
        store.set(f"{call}/{rank}", mine)
        if store.check([said := f"{call}/all"]) and mine in store.get(said).decode().split():
            return dist.PrefixStore(call, store)
        time.sleep(PAUSE)
    raise dist.DistStoreError(f"rank {rank}: no rank 0 after {timeout}")
