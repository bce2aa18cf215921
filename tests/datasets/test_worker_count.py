"""DATA_LOADER.NUM_WORKERS auto."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest
from small_run import small_cfg

from timesformer.config.defaults import get_cfg
from timesformer.datasets import worker_count
from timesformer.datasets.loader import construct_loader
from timesformer.datasets.worker_count import Demand, auto_workers, cores_of_rank
from timesformer.utils.distributed import World
from timesformer.utils.errors import ConfigError

Usage = namedtuple("Usage", "free")
SMALL = Demand(batch_bytes=1 << 20, ahead=2, batches=1000)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine of so many GiB of memory and of shared memory, with so many ranks."""

    def make(memory: float = 1000.0, shared: float = 1000.0, ranks: int = 1) -> None:
        monkeypatch.setattr(worker_count, "memory_left", lambda: int(memory * 2**30))
        free = Usage(int(shared * 2**30))
        monkeypatch.setattr(worker_count.shutil, "disk_usage", lambda _: free)
        monkeypatch.setattr(worker_count, "get_world", lambda: World(0, ranks, 0, ranks))

    return make


def test_one_core_is_left_to_train(machine) -> None:
    machine()
    assert [auto_workers(cores, SMALL)[0] for cores in (1, 2, 8, 2.5, 0.5)] == [1, 1, 7, 1, 1]
    assert auto_workers(8, SMALL)[1] == "8 cores, one of them to train"


def test_memory_and_what_there_is_to_do_limit_it(machine) -> None:
    large = Demand(batch_bytes=2**30, ahead=1, batches=1000)
    machine(memory=40, ranks=2)  # a quarter of it for two ranks, of workers of 2.3 GiB
    assert auto_workers(64, large) == (2, "40.0 GiB of memory are free, a worker takes 2.29")
    machine(shared=0.0625)  # as containers have it
    assert auto_workers(64, large)[0] == 0
    assert auto_workers(64, SMALL)[0] == 16
    machine()
    assert auto_workers(64, SMALL._replace(batches=3)) == (3, "3 batches")


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ({(0, 0): {0, 1, 2, 3}, (0, 1): {0, 1, 2, 3}}, 2.0),  # all of them to all
        ({(0, 0): {0, 1, 2, 3}, (0, 1): {4, 5, 6, 7}}, 4.0),  # each its own
        ({(0, 0): {0, 1, 2, 3}, (2, 0): {0, 1, 2, 3}}, 4.0),  # another node's have the same numbers
    ],
)
def test_cores_that_ranks_share_are_divided(monkeypatch, theirs, expected) -> None:
    world = World(0, len(theirs), 0, sum(node == 0 for node, _ in theirs))
    monkeypatch.setattr(worker_count, "get_world", lambda: world)
    monkeypatch.setattr(worker_count, "usable_cores", lambda: frozenset(theirs[0, 0]))
    everyone = [(node, frozenset(cores)) for (node, _), cores in theirs.items()]
    monkeypatch.setattr(worker_count, "gather_objects", lambda mine: everyone)
    monkeypatch.setattr(worker_count, "cpu_quota", lambda: None)
    assert cores_of_rank() == expected
    monkeypatch.setattr(worker_count, "cpu_quota", lambda: 2.0 * world.local_size)
    assert cores_of_rank() == 2.0


def test_the_word_is_a_value_of_the_key(synthetic_dir: Path, tmp_path: Path, caplog) -> None:
    cfg = small_cfg(synthetic_dir, tmp_path, DATA_LOADER__NUM_WORKERS="auto")
    assert cfg.DATA_LOADER.NUM_WORKERS == -1
    with caplog.at_level("INFO", logger="timesformer"):
        loader = construct_loader(cfg, "train")
    assert loader.num_workers >= 0
    assert f"NUM_WORKERS auto: {loader.num_workers} for train" in caplog.text
    with pytest.raises(ConfigError, match="NUM_WORKERS must be a whole number or auto, not 'all'"):
        get_cfg().merge_from_list(["DATA_LOADER.NUM_WORKERS", "all"])
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_EPOCH must be a whole number, not 'auto'"):
        get_cfg().merge_from_list(["SOLVER.MAX_EPOCH", "auto"])
