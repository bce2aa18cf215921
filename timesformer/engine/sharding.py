"""A model that ranks share between them: TRAIN.SHARDING fsdp, which is torch's FSDP2.

Weights are read, restored and compared as ever, whole on every rank. Then, just before the first
step, each rank keeps its part of every parameter and of what the optimizer has gathered for it, and
names stay what they are. A block's parameters are whole while it computes; what is saved is whole
again, in the main process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from timesformer.engine.optimizer import construct_optimizer
from timesformer.models.attention import SpaceTimeBlock
from timesformer.utils.checkpoint import bare
from timesformer.utils.distributed import device_for, get_world, is_main
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)


def is_shared(model: nn.Module) -> bool:
    """Whether ranks have a model's parameters in parts."""
    return isinstance(model, FSDPModule)


def share(
    cfg: CfgNode,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """Spread a model, in place, over the ranks, if TRAIN.SHARDING says so and there are several.

    Args:
        cfg: reads TRAIN.SHARDING and GRAD_COMPRESSION, and what the optimizer is made from.
        model: the same on all ranks, not wrapped.
        optimizer: of this model; it is of no use any more.
        average: the moving average of the weights, which is spread alike.

    Returns:
        The optimizer of the parts, with its part of what the given one had gathered.
    """
    world = get_world()
    if cfg.TRAIN.SHARDING == "none" or world.size == 1:
        return optimizer
    mesh = init_device_mesh(device_for(cfg).type, (world.size,))
    compressed = cfg.TRAIN.GRAD_COMPRESSION == "bf16"
    for one in (model, average):
        if one is not None:
            _share(one, mesh, torch.bfloat16 if compressed else None)
    fresh = construct_optimizer(model, cfg)
    for whole, part in zip(_parameters(optimizer), _parameters(fresh), strict=True):
        if kept := optimizer.state.get(whole):
            fresh.state[part] = {name: _part(value, part) for name, value in kept.items()}
    own = sum(local(parameter).numel() for parameter in model.parameters())
    logger.info("TRAIN.SHARDING fsdp: the main process has %s parameters of its own", f"{own:,}")
    return fresh


def _share(model: nn.Module, mesh: DeviceMesh, sent_as: torch.dtype | None) -> None:
    policy = MixedPrecisionPolicy(reduce_dtype=sent_as)
    blocks = [module for module in model.modules() if isinstance(module, SpaceTimeBlock)]
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)


def _part(value: Any, like: Tensor) -> Any:
    """Return this rank's part of what an optimizer has gathered for a parameter."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def local(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor: its part where ranks share it, else all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whose parts all ranks bring together; another one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Any) -> Any:
    """Return a state in which no tensor is in parts any more; all ranks have to take part.

    They are brought together one by one, so a rank's device needs room for one more tensor, and the
    main process's memory for all of them. In other ranks, None stands for a tensor that was in
    parts. One that isn't is the same as before.
    """
    if isinstance(state, dict):
        return {key: whole_state(value) for key, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    together = state.full_tensor().detach()
    return together.cpu() if is_main() else None


def gathered(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> dict[str, Any]:
    """Return what a checkpoint holds of a shared model; see `whole_state`.

    Returns:
        `model_state`, `optimizer_state` and, with an average, `ema_state`; {} for a model that
        isn't shared.
    """
    if not is_shared(bare(model)):
        return {}
    states = {"model_state": bare(model).state_dict(), "optimizer_state": optimizer.state_dict()}
    if average is not None:
        states["ema_state"] = average.state_dict()
    return whole_state(states)


@contextmanager
def whole_models(models: Sequence[nn.Module]) -> Iterator[None]:
    """Let every rank have all parameters of shared models for a while, to compute at its own pace.

    Else every forward pass would wait for the other ranks, which have other numbers of videos.
    """
    parts = [part for model in models for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part not in models, recurse=False)
            part.reshard()
