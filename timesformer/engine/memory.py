"""Where memory doesn't suffice: one line that names what to lower, and to what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from fvcore.common.config import CfgNode

from timesformer.config.allowed import is_auto
from timesformer.config.layout import half_batch
from timesformer.models.architecture import KNOBS
from timesformer.models.build import meta_model
from timesformer.utils.distributed import device_for, get_rank, get_world_size
from timesformer.utils.errors import TrainingError

_FEWER = "DATA_LOADER.NUM_WORKERS to a number below what the log says that auto took"
_OF_CPU = re.compile(r"can't allocate memory|std::bad_alloc|not enough memory: you tried")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, of the GPU or not, doesn't suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _OF_CPU.search(str(error)) is not None


@contextmanager
def memory_errors(cfg: CfgNode, part: str) -> Iterator[None]:
    """Say what to lower where memory doesn't suffice.

    Args:
        cfg: the config.
        part: TRAIN, which validates too, or TEST.

    Raises:
        TrainingError: instead of torch's, or Python's, error.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        rank = f"rank {get_rank()}: " if get_world_size() > 1 else ""
        of_gpu = isinstance(error, torch.OutOfMemoryError)
        used = _used(cfg) if of_gpu else ""
        raise TrainingError(
            f"{rank}out of memory{used}: {_advice(cfg, part, of_gpu)} ({said:.200})"
        ) from error


def _used(cfg: CfgNode) -> str:
    """Say how much of its memory the GPU has given to this process and to others."""
    device, used = device_for(cfg), ""
    if device.type == "cpu":
        return used
    with suppress(RuntimeError, AssertionError):  # no GPU, or one that is beyond answering
        free, total = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_reserved(device)
        used = (
            f" ({device} has {total / 2**30:.1f} GiB, of which this process holds "
            f"{ours / 2**30:.1f} and others {(total - free - ours) / 2**30:.1f})"
        )
    return used


def _advice(cfg: CfgNode, part: str, of_gpu: bool) -> str:
    workers = cfg.DATA_LOADER.NUM_WORKERS
    if cfg.NUM_GPUS and not of_gpu:  # the model is elsewhere
        if is_auto("DATA_LOADER.NUM_WORKERS", workers):
            return f"set {_FEWER}"
        return f"set DATA_LOADER.NUM_WORKERS {workers // 2}" if workers else "take less of it"
    steps = [smaller] if (smaller := half_batch(cfg, part)) else []
    if part == "TRAIN" and _can_checkpoint(cfg):
        steps.append("TIMESFORMER.ACT_CHECKPOINT True")
    if cfg[part].AMP == "none":
        steps.append(f"{part}.AMP bf16")
    if not of_gpu and workers:
        steps.append(f"DATA_LOADER.NUM_WORKERS below {workers}" if workers > 0 else _FEWER)
    if not steps:
        return f"{part}.BATCH_SIZE is the least: take a smaller model, or fewer or smaller frames"
    return "set " + ", or ".join(steps)


def _can_checkpoint(cfg: CfgNode) -> bool:
    if cfg.TIMESFORMER.ACT_CHECKPOINT:
        return False
    return "act_checkpoint" in getattr(meta_model(cfg), "knobs", KNOBS)
