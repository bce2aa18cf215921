"""How many processes a run has, and how the clips of a step are spread over them."""

from __future__ import annotations

import math
from typing import NamedTuple

from timesformer.config.node import CfgNode
from timesformer.utils.errors import ConfigError
from timesformer.utils.launchers import tasks
from timesformer.utils.text import counted


class BatchLayout(NamedTuple):
    """How one optimizer step's clips are spread; the product of the first three is the last."""

    per_rank: int  # clips in one forward pass of one process
    ranks: int  # processes over all nodes
    accumulation: int  # forward passes of each process for one optimizer step
    global_batch: int  # clips for one optimizer step


def ranks(cfg: CfgNode) -> tuple[int, int]:
    """Return (processes on each node, nodes). Under torchrun and srun, the environment decides."""
    if found := tasks(cfg.NUM_GPUS, cfg.NUM_SHARDS):
        return found.local_size, found.nodes
    return max(1, cfg.NUM_GPUS), cfg.NUM_SHARDS


def accumulation(cfg: CfgNode, nodes: int) -> int:
    """Return the forward passes of a step; `batch_layout` knows whether they come out even."""
    return max(1, cfg.GLOBAL_BATCH_SIZE // (cfg.TRAIN.BATCH_SIZE * nodes))


def batch_layout(cfg: CfgNode, ranks_per_node: int, nodes: int) -> BatchLayout:
    """Work out how GLOBAL_BATCH_SIZE is reached.

    Args:
        cfg: reads TRAIN.BATCH_SIZE (clips per node and forward) and GLOBAL_BATCH_SIZE.
        ranks_per_node: processes on each node.
        nodes: nodes that take part.

    Raises:
        ConfigError: either doesn't divide, with the nearest values that do.
    """
    clips = per_rank(cfg, "TRAIN", ranks_per_node)
    forward, wanted = cfg.TRAIN.BATCH_SIZE * nodes, cfg.GLOBAL_BATCH_SIZE or None
    if wanted is None:
        return BatchLayout(clips, ranks_per_node * nodes, 1, forward)
    if wanted % forward:
        raise ConfigError(
            f"GLOBAL_BATCH_SIZE {wanted} is not a multiple of the {forward} clips of one forward "
            f"pass (TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} x nodes {nodes}); nearest: "
            f"{nearest_multiples(wanted, forward)}, or 0 for a step after every forward pass"
        )
    return BatchLayout(clips, ranks_per_node * nodes, accumulation(cfg, nodes), wanted)


def batch_choices(cfg: CfgNode, ranks_per_node: int, nodes: int) -> list[int]:
    """Return the values of TRAIN.BATCH_SIZE that give GLOBAL_BATCH_SIZE by accumulation.

    Raises:
        ConfigError: there is none, or GLOBAL_BATCH_SIZE leaves it open what a step is.
    """
    if not cfg.GLOBAL_BATCH_SIZE:
        raise ConfigError(
            "TRAIN.BATCH_SIZE auto needs GLOBAL_BATCH_SIZE, the clips of a step: with 0 they would "
            "depend on the machine"
        )
    step = _step(cfg, "TRAIN", ranks_per_node)
    most, rest = divmod(cfg.GLOBAL_BATCH_SIZE, nodes)
    found = [] if rest else [n for n in range(step, most + 1, step) if most % n == 0]
    if not found:
        raise ConfigError(
            f"GLOBAL_BATCH_SIZE {cfg.GLOBAL_BATCH_SIZE} doesn't divide into forward passes of "
            f"{counted(step, 'clip')} or a multiple on {counted(nodes, 'node')} (TRAIN.BATCH_SIZE "
            f"auto); nearest: {nearest_multiples(cfg.GLOBAL_BATCH_SIZE, step * nodes)}"
        )
    return found


def with_batch(cfg: CfgNode, clips: int) -> CfgNode:
    """Return a config with another TRAIN.BATCH_SIZE."""
    chosen = cfg.clone()
    chosen.TRAIN.BATCH_SIZE = clips
    return chosen


def too_few_for_a_batch(cfg: CfgNode, videos: int, ranks_per_node: int, nodes: int) -> str:
    """Say what to set where a training set has no video for every place in a batch; else "".

    Args:
        cfg: reads TRAIN.BATCH_SIZE, GLOBAL_BATCH_SIZE and DATA.NUM_SAMPLES, which fit each other,
            and DATA.FRACTION.
        videos: of the training set.
        ranks_per_node: processes on each node.
        nodes: nodes that take part.
    """
    samples, batch = cfg.DATA.NUM_SAMPLES, cfg.TRAIN.BATCH_SIZE
    wanted = batch * nodes // samples
    if videos >= wanted:
        return ""
    fitting = [
        clips
        for clips in smaller_batches(cfg, "TRAIN", ranks_per_node)
        if clips * nodes <= videos * samples and cfg.GLOBAL_BATCH_SIZE % (clips * nodes) == 0
    ]
    what = f"set TRAIN.BATCH_SIZE {fitting[-1]}" if fitting else "add videos, or take fewer GPUs"
    if cfg.DATA.FRACTION < 1:
        what += f", or raise DATA.FRACTION {cfg.DATA.FRACTION:g}"
    return (
        f"the training set has {counted(videos, 'video')}, fewer than the {wanted} of one batch: "
        f"{what} (TRAIN.BATCH_SIZE is {batch}, the clips of a node)"
    )


def smaller_batches(cfg: CfgNode, part: str, ranks_per_node: int) -> list[int]:
    """Return the values below that of TRAIN.BATCH_SIZE, or TEST's, that every process can share."""
    step = _step(cfg, part, ranks_per_node)
    return list(range(step, cfg[part].BATCH_SIZE, step))


def _step(cfg: CfgNode, part: str, ranks_per_node: int) -> int:
    """Return the number of clips that every process can share, of which others are multiples."""
    if part == "TRAIN":
        ranks_per_node *= math.lcm(cfg.DATA.NUM_SAMPLES, 2 if cfg.MIXUP.ENABLED else 1)
    return ranks_per_node


def half_batch(cfg: CfgNode, part: str) -> str:
    """Say what to set for forward passes of half as many clips or fewer; "" if nothing fits.

    Args:
        cfg: a config whose layout fits.
        part: TRAIN, where the step stays what it is, or TEST.
    """
    batch, (local, nodes) = cfg[part].BATCH_SIZE, ranks(cfg)
    whole = batch_layout(cfg, local, nodes).global_batch if part == "TRAIN" else 0
    sizes = smaller_batches(cfg, part, local)
    fitting = [clips for clips in sizes if 2 * clips <= batch and whole % (clips * nodes) == 0]
    if not fitting:
        return ""
    said = f"{part}.BATCH_SIZE {fitting[-1]} instead of {batch}"
    if part == "TEST":
        return said
    keeps = "keeps" if cfg.GLOBAL_BATCH_SIZE else "with it keeps"
    return f"{said} (GLOBAL_BATCH_SIZE {whole} {keeps} the step, in more forward passes)"


def per_rank(cfg: CfgNode, part: str, ranks_per_node: int) -> int:
    """Return the clips in one forward pass of a process, in TRAIN or TEST.

    Raises:
        ConfigError: those of a node don't spread evenly, with the nearest numbers that do.
    """
    batch = cfg[part].BATCH_SIZE
    if batch % ranks_per_node:
        raise ConfigError(
            f"{part}.BATCH_SIZE {batch} does not split evenly over the {ranks_per_node} "
            f"processes of a node; nearest: {nearest_multiples(batch, ranks_per_node)}"
        )
    return batch // ranks_per_node


def nearest_multiples(value: int, step: int) -> str:
    """Return in words the multiples of `step` around a value."""
    below = value // step * step
    return f"{below} or {below + step}" if below else str(step)
