"""Any number of videos on any number of ranks: every one is scored once, as by one process."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign import scaled, tell
from children import free_port
from torch import nn

from timesformer.datasets.lists.records import Record
from timesformer.datasets.loader import EvalBatches, VideoLoader, collate
from timesformer.datasets.video_dataset import FAILED, Problem
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.scoring import score_videos
from timesformer.utils.distributed import World, get_world
from timesformer.utils.starting import _run

VIDEOS, RANKS, BATCHES = range(1, scaled(17) + 1), (1, 2, 3), range(1, 6)
VIEWS, CLASSES = 3, 4
UNREADABLE = 5  # every so many


class Numbers:
    """Videos whose views are their numbers; some can't be read."""

    num_views = VIEWS

    def __init__(self, count: int) -> None:
        self.records = [Record(f"{i}.mp4", 0) for i in range(count)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, keys: list[int]) -> list[Any]:
        return [self.item(key) for key in keys]

    def item(self, i: int) -> Any:
        if i % UNREADABLE == UNREADABLE - 1:
            return Problem(i, f"{i}.mp4", "", "broken", FAILED)
        views = torch.arange(VIEWS)
        clips = (10 * i + views).float().view(VIEWS, 1, 1, 1, 1).expand(VIEWS, 3, 1, 1, 1)
        return clips, 0, i, {"view": views, "problems": []}

    def normalize(self, clips: torch.Tensor) -> torch.Tensor:
        return clips


class Powers(nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips[:, 0, 0, 0, 0, None] ** torch.arange(CLASSES)


def expected(count: int) -> torch.Tensor:
    views = 10.0 * torch.arange(count)[:, None] + torch.arange(VIEWS)
    scores = (views[..., None] ** torch.arange(CLASSES)).sum(1)
    scores[UNREADABLE - 1 :: UNREADABLE] = torch.nan
    return scores


def check(cfg: Any, folder: Path, results: Any) -> None:
    world, wrong = get_world(), []
    for videos, batch in itertools.product(VIDEOS, BATCHES):
        loader = VideoLoader(
            Numbers(videos),
            num_workers=0,
            batch_sampler=EvalBatches(videos, batch, world.rank, world.size),
            collate_fn=collate,
        )
        broken = BrokenVideos(folder, "test", videos)
        table = score_videos(
            Powers(), loader, torch.device("cpu"), broken, num_classes=CLASSES, clips=7
        )
        if world.rank == 0:
            assert table is not None
            if not torch.allclose(table.scores, expected(videos), equal_nan=True):
                wrong.append((videos, world.size, batch))
    if world.rank == 0:
        results.put(wrong)


def rank(number: int, size: int, port: int, folder: Path, results: Any) -> None:
    from timesformer.config.defaults import get_cfg

    cfg = get_cfg()
    cfg.NUM_GPUS = 0
    world = World(number, size, number, size)
    _run(cfg, f"tcp://localhost:{port}", lambda cfg: check(cfg, folder, results), world)


@pytest.mark.dist
def test_uneven_evaluation(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    wrong = []
    for size in RANKS:
        results, port = context.Queue(), free_port()
        processes = [
            context.Process(target=rank, args=(i, size, port, tmp_path, results))
            for i in range(size)
        ]
        for process in processes:
            process.start()
        wrong += results.get(timeout=300)
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    combinations = len(VIDEOS) * len(RANKS) * len(BATCHES)
    tell("uneven evaluation", combinations=combinations, wrong=len(wrong))
    assert not wrong
