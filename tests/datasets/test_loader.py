from __future__ import annotations

import errno
import multiprocessing
import signal
import subprocess
import sys
import time
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest
import torch
from fvcore.common.config import CfgNode
from video_fixtures import numbered_frames, write_video

from timesformer.config.defaults import get_cfg
from timesformer.config.multigrid import Steps
from timesformer.datasets import loader as loader_module
from timesformer.datasets.loader import (
    EvalBatches,
    TrainBatches,
    VideoLoader,
    construct_loader,
)
from timesformer.datasets.workers import exhausted, worker_errors
from timesformer.utils.distributed import World
from timesformer.utils.errors import ConfigError, TrainingError, UserError, VideoError
from timesformer.utils.processes import is_alive

VIDEOS = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists")
    rows = []
    for i in range(VIDEOS):
        write_video(path / f"{i}.mp4", numbered_frames(12 + i, 32, 40))
        rows.append(f"{path}/{i}.mp4 {i % 3}\n")
    for split in ("train", "val", "test"):
        (path / f"{split}.csv").write_text("".join(rows))
    return path


@pytest.fixture
def cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.NUM_GPUS = 0
    cfg.MODEL.NUM_CLASSES = 3
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE = 2, 4
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 40]
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE = 2, 13
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    cfg.DATA_LOADER.NUM_WORKERS = 0
    return cfg


def set_world(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    monkeypatch.setattr(loader_module, "get_world", lambda: World(rank, size, rank, size))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_evaluation_covers_each_id_once(ranks: int, batch: int) -> None:
    for videos in range(1, 18):
        samplers = [EvalBatches(videos, batch, rank, ranks) for rank in range(ranks)]
        batches = [list(sampler) for sampler in samplers]
        assert [len(sampler) for sampler in samplers] == [len(b) for b in batches]
        assert all(1 <= len(ids) <= batch for rank in batches for ids in rank)
        assert sorted(i for rank in batches for ids in rank for i in ids) == list(range(videos))
        # The whole batches don't depend on the ranks that share them.
        alone = list(EvalBatches(videos, batch, 0, 1))
        assert sorted(ids for rank in batches for ids in rank) == alone


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("length", [6, 11, 17, 24])
def test_training_batches_do_not_depend_on_the_ranks(ranks: int, length: int) -> None:
    def batches(rank: int, size: int, epoch: int) -> list[list[tuple[int, int]]]:
        sampler = TrainBatches(length, 6 // size, rank, size, seed=4)
        sampler.epoch = epoch
        assert len(sampler) == length // 6
        return list(sampler)

    alone = batches(0, 1, epoch=2)
    by_rank = [batches(rank, ranks, epoch=2) for rank in range(ranks)]
    joined = [[key for ids in parts for key in ids] for parts in zip(*by_rank, strict=True)]
    assert joined == alone
    keys = [key for ids in alone for key in ids]
    assert len({index for index, _ in keys}) == len(keys) == length // 6 * 6
    assert {epoch for _, epoch in keys} == {2}
    assert [i for i, _ in keys] != [i for ids in batches(0, 1, epoch=3) for i, _ in ids]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 3])
def test_larger_batches_of_smaller_clips_do_not_depend_on_the_ranks(ranks: int, first: int) -> None:
    cfg = get_cfg()
    cfg.TRAIN.MULTIGRID, cfg.SOLVER.MAX_EPOCH = "short", 2

    def batches(rank: int, size: int, first: int = first) -> list[list[tuple[int, ...]]]:
        steps = Steps(cfg, 53 // 6, accumulation=1)
        sampler = TrainBatches(53, 6 // size, rank, size, seed=4, steps=steps)
        sampler.first = first
        assert len(sampler) == 4
        return list(sampler)

    by_rank = [batches(rank, ranks) for rank in range(ranks)]
    assert {len(ids) for rank in by_rank for ids in rank[:1]} == {(6 if first else 24) // ranks}
    joined = [[key for ids in parts for key in ids] for parts in zip(*by_rank, strict=True)]
    assert joined == batches(0, 1)
    if not first:  # 4, 2 and 1 batches of 6, and what is left of 8; as plain batches have them
        assert [{key[3] if key[3:] else 0 for key in ids} for ids in joined] == [{1}, {2}, {0}, {1}]
        plain = chain(*TrainBatches(53, 6, 0, 1, seed=4))
        assert [key[:2] for key in chain(*joined)] == list(plain)


def test_an_epoch_of_many_videos_takes_little_memory() -> None:
    videos = 100_000
    tracemalloc.start()
    try:
        batches = iter(TrainBatches(videos, 8, 1, 2, seed=4))
        first = next(batches)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(first) == 8
    assert peak < 20 * videos  # bytes: two arrays of them at most, and no tuple for each


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_do_not_depend_on_the_workers(cfg: CfgNode, split: str) -> None:
    def epoch_1(workers: int) -> list:
        cfg.DATA_LOADER.NUM_WORKERS = workers
        loader = construct_loader(cfg, split)
        next(iter(loader))  # a pass that is given up must leave no trace
        loader.set_epoch(1)
        return list(loader)

    state = torch.get_rng_state()
    alone, shared = epoch_1(0), epoch_1(2)
    assert torch.get_rng_state().equal(state), "data drew from the global generator"
    assert len(alone) == len(shared) > 1
    for a, b in zip(alone, shared, strict=True):
        assert all(x.equal(y) for x, y in zip(a[:3], b[:3], strict=True))
        assert a[3]["view"].equal(b[3]["view"])


def test_epochs_differ(cfg: CfgNode) -> None:
    loader = construct_loader(cfg, "train")
    first = torch.cat([index for _, _, index, _ in loader])
    loader.set_epoch(1)
    assert len(first) == 6
    assert not torch.cat([index for _, _, index, _ in loader]).equal(first)


def test_train_batch(cfg: CfgNode) -> None:
    loader = construct_loader(cfg, "train")
    inputs, labels, index, meta = next(iter(loader))
    assert len(loader) == 3
    assert inputs.shape == (2, 3, 2, 32, 32)
    assert labels.tolist() == [i % 3 for i in index.tolist()]
    assert meta["view"].tolist() == [0, 0]


def test_test_batches_have_a_row_for_each_view(cfg: CfgNode) -> None:
    """13 clips are 2 videos of 6 views."""
    batches = list(construct_loader(cfg, "test"))
    assert [len(labels) for _, labels, _, _ in batches] == [12, 12, 12, 6]
    inputs, labels, index, meta = batches[1]
    assert inputs.shape == (12, 3, 2, 32, 32)
    assert index.tolist() == [2] * 6 + [3] * 6
    assert labels.tolist() == [2] * 6 + [0] * 6
    assert meta["view"].tolist() == [*range(6), *range(6)]
    cfg.TEST.BATCH_SIZE = 1  # a video is never split
    assert len(construct_loader(cfg, "test")) == VIDEOS


def test_batch_sizes_are_shared_by_the_ranks_of_a_node(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE = 6, 24
    rows = {"train": [3], "val": [3, 1], "test": [12, 12]}
    for split, expected in rows.items():
        set_world(monkeypatch, 0, 2)
        assert [len(labels) for _, labels, _, _ in construct_loader(cfg, split)] == expected
    seen = []
    for rank in range(2):
        set_world(monkeypatch, rank, 2)
        seen += [i for _, _, index, _ in construct_loader(cfg, "val") for i in index.tolist()]
    assert sorted(seen) == list(range(VIDEOS))


def test_too_few_videos_for_a_batch(cfg: CfgNode) -> None:
    cfg.TRAIN.BATCH_SIZE = 8
    with pytest.raises(ConfigError, match=r"7 videos, fewer than the 8 .*set TRAIN.BATCH_SIZE \d "):
        construct_loader(cfg, "train")
    assert len(construct_loader(cfg, "val")) == 1


def with_missing(cfg: CfgNode, tmp_path: Path, split: str, *rows: int) -> None:
    lines = (Path(cfg.DATA.PATH_TO_DATA_DIR) / f"{split}.csv").read_text().splitlines()
    for row in rows:
        lines[row] = f"{tmp_path}/gone{row}.mp4 0"
    (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_is_left_out_of_an_evaluation(
    cfg: CfgNode, tmp_path: Path, workers: int
) -> None:
    with_missing(cfg, tmp_path, "val", 2, 3, 4)
    cfg.DATA_LOADER.NUM_WORKERS = workers
    batches = list(construct_loader(cfg, "val"))
    assert [index.tolist() for _, _, index, _ in batches] == [[0, 1], [], [5], [6]]
    problems = [[p.record for p in meta["problems"]] for _, _, _, meta in batches]
    assert problems == [[], [2, 3], [4], []]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_is_replaced_in_training(cfg: CfgNode, tmp_path: Path, workers: int) -> None:
    with_missing(cfg, tmp_path, "train", 2, 3)
    cfg.DATA_LOADER.NUM_WORKERS = workers
    batches = list(construct_loader(cfg, "train"))
    assert [len(index) for _, _, index, _ in batches] == [2, 2, 2]
    index = torch.cat([index for _, _, index, _ in batches])
    assert not {2, 3} & set(index.tolist())
    assert {p.record for _, _, _, meta in batches for p in meta["problems"]} <= {2, 3}
    cfg.DATA_LOADER.NUM_WORKERS = 0
    alone = torch.cat([index for _, _, index, _ in construct_loader(cfg, "train")])
    assert index.equal(alone)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_that_ends_a_run_is_raised_as_it_was(
    cfg: CfgNode, tmp_path: Path, workers: int
) -> None:
    with_missing(cfg, tmp_path, "train", *range(VIDEOS))
    cfg.DATA_LOADER.NUM_WORKERS = workers
    with pytest.raises(VideoError, match=r"gone\d.mp4: no such file") as caught:
        next(iter(construct_loader(cfg, "train")))
    assert caught.value.path.startswith(f"{tmp_path}/gone")


def test_several_clips_of_a_video_share_a_batch(cfg: CfgNode) -> None:
    cfg.DATA.NUM_SAMPLES, cfg.TRAIN.BATCH_SIZE = 2, 4
    loader = construct_loader(cfg, "train")
    assert len(loader) == 3  # 2 videos a batch
    inputs, labels, index, meta = next(iter(loader))
    assert inputs.shape == (4, 3, 2, 32, 32)
    assert index[::2].tolist() == index[1::2].tolist()
    assert labels.tolist() == [i % 3 for i in index.tolist()]
    assert meta["view"].tolist() == [0, 1, 0, 1]


def loads_to_the_end(loader: VideoLoader) -> None:
    with worker_errors(loader):
        for _ in loader:
            pass


class CantBeSent:
    """What the thread that hands batches over can't pickle."""

    def __reduce__(self) -> str:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device")


def test_a_batch_that_cant_be_handed_over_is_no_hang(cfg: CfgNode, monkeypatch, capfd) -> None:
    """As where /dev/shm is full, or too many files are open."""
    cfg.DATA_LOADER.NUM_WORKERS = 1
    monkeypatch.setattr(loader_module, "collate", lambda items: CantBeSent())
    loader = construct_loader(cfg, "val")
    with pytest.raises(TrainingError, match=r"--shm-size.*ulimit -n.*NUM_WORKERS 0"):
        loads_to_the_end(loader)
    assert "No space left on device" in capfd.readouterr().err


def test_a_semaphore_that_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where workers are started while /dev/shm is full."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("_multiprocessing.SemLock", full)
    with pytest.raises(TrainingError, match=r"shm-size.*--workers.*NUM_WORKERS 0"), worker_errors():
        multiprocessing.get_context("spawn").Lock()


def test_other_errors_stay_what_they_are() -> None:
    assert not exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not exhausted(RuntimeError("Caught KeyError in DataLoader worker process 0.\nTraceback"))
    assert not exhausted(OSError(errno.ENOSPC, "No space left on device", "out/stats.jsonl"))
    assert not exhausted(OSError(errno.ENOSPC, "No space left on device"))  # stdout's
    assert "ulimit" in exhausted(OSError(errno.EMFILE, "Too many open files"))
    assert "shm-size" in exhausted(RuntimeError("DataLoader worker (pid 7) is killed by signal"))
    with pytest.raises(RuntimeError, match="shapes"), worker_errors():
        raise RuntimeError("shapes")


ORPHANS = """
import multiprocessing, os, signal, sys
import torch
from timesformer.datasets.workers import init_worker

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    data = torch.utils.data.DataLoader(range(100), num_workers=2, worker_init_fn=init_worker)
    batches = iter(data)
    next(batches)
    print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_end_with_the_main_process(method: str, tmp_path: Path) -> None:
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("kills as Unix does")
    (tmp_path / "main.py").write_text(ORPHANS)
    command = [sys.executable, str(tmp_path / "main.py"), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout
        workers = [int(pid) for pid in main.stdout.readline().split()]
    assert len(workers) == 2
    end = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))


def end_with_workers(cfg: CfgNode) -> None:
    """Ends by an error that is kept, and with it the workers of a loader."""
    cfg.DATA_LOADER.NUM_WORKERS = 1
    loader = construct_loader(cfg, "train")
    next(iter(loader))
    kept.append(loader)
    print("read", flush=True)
    raise UserError("stop")


kept: list[VideoLoader] = []


def test_a_process_ends_though_its_workers_leave_signals_to_it(cfg: CfgNode, tmp_path: Path):
    from children import Run  # which skips where there is no fork

    run = Run(end_with_workers, cfg, output=tmp_path / "said")
    try:
        assert run.wait(60) == 2, run.said
        assert run.said == "read\nerror: stop\n"
    finally:
        run.clear()
