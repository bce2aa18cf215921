"""Where a process stands among all."""

from __future__ import annotations

import torch

from timesformer.config.defaults import get_cfg
from timesformer.utils import distributed
from timesformer.utils.distributed import World, device_for, standing_at


def test_place_on_the_node_without_torchrun_is_the_place_among_all(monkeypatch):
    assert distributed._with_local_place(1, 2) == World(1, 2, 1, 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert distributed._with_local_place(7, 8) == World(7, 8, 3, 4)


def test_each_rank_has_its_own_gpu():
    cfg = get_cfg()
    cfg.NUM_GPUS = 4
    with standing_at(World(6, 8, 2, 4)):
        assert device_for(cfg) == torch.device("cuda", 2)
    cfg.NUM_GPUS = 0
    assert device_for(cfg) == torch.device("cpu")
