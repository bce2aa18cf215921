"""Ranks that are started again meet among themselves, not with what former ones left."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from timesformer.utils.meeting import own_part

LONG = timedelta(seconds=60)


@pytest.fixture
def server() -> dist.TCPStore:
    """A store that outlives the ranks, as torchrun's does."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=LONG)


def attempt(server: dist.TCPStore, first: int, ranks: int = 3) -> list[str]:
    """Let ranks meet, one of them before the others; return what each is told by rank 0."""
    told = [""] * ranks

    def rank(number: int) -> None:
        if number != first:
            time.sleep(0.3)
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=LONG)
        part = own_part(store, number, ranks, LONG)
        if number == 0:
            assert not part.check(["at"])
            part.set("at", f"{threading.get_ident()} {time.monotonic()}")
        told[number] = part.get("at").decode()

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def test_each_attempt_has_its_own_part_whoever_comes_first(server: dist.TCPStore) -> None:
    seen = [attempt(server, first) for first in (0, 2, 1, 0)]
    assert all(len({*told}) == 1 and told[0] for told in seen), seen
    assert len({told[0] for told in seen}) == 4


def test_a_rank_that_meets_nobody_says_so(server: dist.TCPStore) -> None:
    attempt(server, 0, 2)  # its call is there still
    store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=LONG)
    with pytest.raises(dist.DistStoreError, match="rank 1: no rank 0 after"):
        own_part(store, 1, 2, timedelta(seconds=0.3))
