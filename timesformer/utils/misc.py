"""Random generators that are functions of a key, so nothing depends on which process asks.

And `launch_job`, which the published code has here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from fvcore.common.config import CfgNode

from timesformer.utils.distributed import launch
from timesformer.utils.errors import ConfigError


def keyed_rng(*key: int) -> np.random.Generator:
    """Return a generator that depends on ``key`` alone, e.g. ``keyed_rng(seed, epoch, index)``.

    Args:
        key: integers >= 0; their order matters.
    """
    return np.random.default_rng(list(key))


def seed_all(*key: int) -> None:
    """Seed the global generators of torch, numpy and ``random`` from one key.

    Model initialisation, DropPath and mixup draw from these; data never does.
    """
    words = np.random.SeedSequence(list(key)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (timm's mixup draws from numpy's global state)
    torch.manual_seed(int(words[2]))


def launch_job(
    cfg: CfgNode, init_method: str, func: Callable[[CfgNode], None], daemon: bool = False
) -> None:
    """Run `func(cfg)` in every process that the config asks for: `distributed.launch`.

    Raises:
        ConfigError: daemonic processes are asked for, which couldn't have loader workers.
    """
    if daemon:
        raise ConfigError("launch_job: daemon True isn't supported: leave it out")
    launch(cfg, init_method, func)
