"""Batches for one rank, as a function of (seed, epoch) and never of the number of workers.

Training: the ids are shuffled by (seed, epoch), or drawn by it where rare classes are to come more
often (`balance.py`), and cut into global micro-batches; each rank takes
its slice of every one, so the union over ranks doesn't depend on their number. With TRAIN.MULTIGRID
several of them make a batch of smaller clips (`config/multigrid.py`).
Evaluation: the ids in order are cut into batches, which the ranks take in turn; every id comes
exactly once, nothing is padded and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch.utils.data import DataLoader, Dataset, Sampler

from timesformer.config.allowed import is_auto
from timesformer.config.layout import accumulation, per_rank, too_few_for_a_batch
from timesformer.config.multigrid import Steps
from timesformer.datasets.balance import BalancedEpochs
from timesformer.datasets.build import build_split
from timesformer.datasets.video.held import Board
from timesformer.datasets.video_dataset import Item, Problem, VideoDataset
from timesformer.datasets.worker_count import Demand, auto_workers, cores_of_rank
from timesformer.datasets.workers import Crew, init_worker
from timesformer.utils.distributed import World, get_world
from timesformer.utils.errors import ConfigError, VideoError
from timesformer.utils.logging import get_logger
from timesformer.utils.rng import keyed_rng

logger = get_logger(__name__)

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]


class TrainBatches(Sampler[list[tuple[int, ...]]]):
    """Batches of keys for one rank; an incomplete last micro-batch is dropped.

    A key is (index, epoch), or (index, epoch, n) for a video that the epoch has drawn n times
    before, which balanced epochs may, or (index, epoch, n, grid) for clips of another grid.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        rank: int,
        size: int,
        seed: int,
        balanced: BalancedEpochs | None = None,
        steps: Steps | None = None,
    ) -> None:
        """Prepare the batches.

        Args:
            length: number of ids.
            batch_size: ids in a batch of this rank.
            rank: this process.
            size: number of processes.
            seed: of the shuffle.
            balanced: draws the ids of an epoch; each comes once when None.
            steps: what micro-batches are joined to, and their grids; each is one when None.
        """
        self.balanced = balanced
        self.steps = steps
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        """Return the batches of a whole epoch, wherever the next pass begins."""
        return sum(1 for _ in self._passes())

    def _passes(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first micro-batch, how many, grid) for each batch of the epoch."""
        if self.steps is None:
            yield from ((i, 1, 0) for i in range(self.length // (self.batch_size * self.size)))
            return
        for before, size, passes, grid in self.steps.of(self.epoch):
            yield from ((before + i * size, size, grid) for i in range(passes))

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        # Arrays of all ranks' ids; keys are made as they are needed, since they are much larger.
        epoch, before = self.epoch, None
        if self.balanced is None:
            order = keyed_rng("order", self.seed, epoch).permutation(self.length)
        else:
            order, before = self.balanced.draw(epoch)
        for start, count, grid in islice(self._passes(), self.first, None):
            ids = count * self.batch_size
            first = start * self.size * self.batch_size + self.rank * ids
            mine = slice(first, first + ids)
            drawn = [0] * ids if before is None else before[mine].tolist()
            pairs = zip(order[mine].tolist(), drawn, strict=True)
            if grid:
                yield [(i, epoch, n, grid) for i, n in pairs]
            else:
                yield [(i, epoch, n) if n else (i, epoch) for i, n in pairs]


class EvalBatches(Sampler[list[int]]):
    """Batches of ids in order; this rank takes every `size`-th batch."""

    def __init__(self, length: int, batch_size: int, rank: int, size: int) -> None:
        """Prepare the batches; the arguments are those of `TrainBatches`."""
        self.length = length
        self.batch_size = batch_size
        self.starts = range(0, length, batch_size)[rank::size]

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            yield list(range(start, min(start + self.batch_size, self.length)))


class VideoLoader(DataLoader):
    """A DataLoader that shuffles by epoch and raises the `VideoError` of a worker as it was.

    Attributes:
        crew: its worker processes, for `worker_errors`.
    """

    dataset: VideoDataset

    def __init__(self, dataset: Dataset, num_workers: int, **options: Any) -> None:
        """Make a loader; the arguments are those of a DataLoader."""
        board = Board(num_workers)
        self.crew = Crew(board, getattr(dataset, "records", ()))
        init = partial(init_worker, board=board)
        super().__init__(dataset, num_workers=num_workers, worker_init_fn=init, **options)

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the shuffle and the random clips of the next pass.

        Args:
            epoch: from 0.
            first: batch to begin with, where a run goes on within an epoch. Those before aren't
                read.
        """
        if isinstance(self.batch_sampler, TrainBatches):
            self.batch_sampler.epoch, self.batch_sampler.first = epoch, first

    @property
    def steps(self) -> Steps:
        """The optimizer steps of each epoch of training."""
        assert isinstance(self.batch_sampler, TrainBatches)
        assert self.batch_sampler.steps is not None
        return self.batch_sampler.steps

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield this rank's batches.

        Raises:
            VideoError: a file of a training batch can't be read, and no other in its place.
        """
        batches = super().__iter__()
        self.crew.processes = list(getattr(batches, "_workers", ()))
        for batch in batches:
            if isinstance(batch, VideoError):
                raise batch
            yield batch


def collate(items: Sequence[Item | Problem | VideoError]) -> Batch | VideoError:
    """Join items to a batch with one row a clip, leaving out videos that can't be read.

    Returns:
        inputs (B, 3, T, H, W) of pixels, labels (B,) or (B, K), index (B,) of the record, and
        {"view": (B,), "problems": [Problem, …]}; B may be 0. Or the first error among the items.
    """
    good: list[Item] = []
    problems: list[Problem] = []
    for item in items:
        if isinstance(item, VideoError):
            return item
        if isinstance(item, Problem):
            problems.append(item)
        else:
            good.append(item)
            problems += item[3]["problems"]
    meta: dict[str, Any] = {"view": torch.empty(0, dtype=torch.long), "problems": problems}
    if not good:
        return torch.empty(0), torch.empty(0, dtype=torch.long), meta["view"].clone(), meta
    inputs = torch.cat([x if x.dim() == 5 else x[None] for x, _, _, _ in good])
    meta["view"] = torch.cat([meta["view"].reshape(-1) for _, _, _, meta in good])
    repeats = torch.tensor([meta["view"].numel() for _, _, _, meta in good])
    labels = torch.stack([torch.as_tensor(label) for _, label, _, _ in good])
    index = torch.tensor([index for _, _, index, _ in good])
    return inputs, labels.repeat_interleave(repeats, 0), index.repeat_interleave(repeats), meta


def construct_loader(cfg: CfgNode, split: str) -> VideoLoader:
    """Make this rank's loader for train, val or test.

    Raises:
        ConfigError: the training set is smaller than one batch.
    """
    cores = cores_of_rank()  # first: ranks exchange here, and what follows may fail on one of them
    dataset = build_split(cfg, split)
    batches = _batches(cfg, split, dataset, get_world())
    # A test item holds all views of a video: gigabytes, if every worker kept two of them ready.
    ahead = 1 if split == "test" else 2
    workers = cfg.DATA_LOADER.NUM_WORKERS
    if is_auto("DATA_LOADER.NUM_WORKERS", workers):
        demand = Demand(_batch_bytes(cfg, split, dataset, batches.batch_size), ahead, len(batches))
        workers, why = auto_workers(cores, demand)
        logger.info("DATA_LOADER.NUM_WORKERS auto: %d for %s (%s)", workers, split, why)
    return VideoLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        prefetch_factor=ahead if workers else None,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY and cfg.NUM_GPUS > 0 and torch.cuda.is_available(),
        # Its own generator: a pass over data must not advance the one that DropPath draws from.
        generator=torch.Generator().manual_seed(cfg.RNG_SEED),
    )


def evaluation_loader(dataset: VideoDataset, batch_size: int, workers: int) -> VideoLoader:
    """Make a loader of a data set as it is, each video once and in order, in this process alone."""
    batches = EvalBatches(len(dataset), batch_size, 0, 1)
    return loader_of(dataset, batches, workers, collate)


def loader_of(
    dataset: VideoDataset,
    batches: Iterable[list[Any]],
    workers: int,
    join: Callable[[list[Any]], Any],
) -> VideoLoader:
    """Make a loader that asks a data set for batches of keys, in their order.

    Args:
        dataset: is asked by `__getitems__`.
        batches: keys; they are drawn in this process, shortly before they are needed.
        workers: processes that read; 0: this one.
        join: makes what is yielded of what the data set gave.
    """
    return VideoLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=join,
        generator=torch.Generator().manual_seed(0),
    )


def _batch_bytes(cfg: CfgNode, split: str, dataset: Dataset, videos: int) -> int:
    """Return the size of a batch of so many videos: bytes of training pixels, floats of others."""
    if split == "train":
        clips, side, size = cfg.DATA.NUM_SAMPLES, cfg.DATA.TRAIN_CROP_SIZE, 1
    else:
        clips, side, size = dataset.num_views, cfg.DATA.TEST_CROP_SIZE, 4  # type: ignore[attr-defined]
    return videos * clips * 3 * cfg.DATA.NUM_FRAMES * side**2 * size


def _batches(
    cfg: CfgNode, split: str, dataset: Dataset, world: World
) -> TrainBatches | EvalBatches:
    length = len(dataset)  # type: ignore[arg-type]
    if split == "test":
        clips = per_rank(cfg, "TEST", world.local_size)
        videos = max(1, clips // dataset.num_views)  # type: ignore[attr-defined]
        return EvalBatches(length, videos, world.rank, world.size)
    batch_size = per_rank(cfg, "TRAIN", world.local_size)
    if split == "val":
        return EvalBatches(length, batch_size, world.rank, world.size)
    videos = batch_size // cfg.DATA.NUM_SAMPLES
    nodes = world.size // world.local_size
    if why := too_few_for_a_batch(cfg, length, world.local_size, nodes):
        raise ConfigError(why)
    balanced = None
    if cfg.TRAIN.CLASS_BALANCE:
        labels = [record.label for record in dataset.records]  # type: ignore[attr-defined]
        balanced = BalancedEpochs(labels, cfg.TRAIN.CLASS_BALANCE, cfg.RNG_SEED)
    if cfg.TRAIN.MULTIGRID != "none" and not getattr(dataset, "grids", ()):
        raise ConfigError(
            f"TRAIN.MULTIGRID is for data sets of video files that take `video_options`, which "
            f"{cfg.TRAIN.DATASET} isn't: set it to none"
        )
    steps = Steps(cfg, length // (videos * world.size), accumulation(cfg, nodes))
    return TrainBatches(length, videos, world.rank, world.size, cfg.RNG_SEED, balanced, steps)
