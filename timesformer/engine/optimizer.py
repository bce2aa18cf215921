"""Optimizers. Weight decay acts on every parameter, as in the published recipes."""

from __future__ import annotations

from typing import Any

import torch
from fvcore.common.config import CfgNode
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.distributed.tensor import DTensor

from timesformer.utils.checkpoint import bare
from timesformer.utils.eight_bit import METHOD, adamw_8bit
from timesformer.utils.errors import ConfigError


def construct_optimizer(model: nn.Module, cfg: CfgNode) -> torch.optim.Optimizer:
    """Make the optimizer of SOLVER.OPTIMIZING_METHOD for the parameters that aren't frozen.

    Raises:
        ConfigError: for an unknown method, if every parameter is frozen, or if the model doesn't
            say which layer a parameter belongs to.
    """
    solver, model = cfg.SOLVER, bare(model)
    parameters: list[Any] = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError("every parameter of the model is frozen (TRAIN.FREEZE): nothing to train")
    if solver.LAYER_DECAY != 1:
        if not hasattr(model, "group_matcher"):
            raise ConfigError(
                f"SOLVER.LAYER_DECAY {solver.LAYER_DECAY} needs a model with a group_matcher, "
                f"which {cfg.MODEL.MODEL_NAME} lacks: set it to 1"
            )
        parameters = param_groups_layer_decay(
            model,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_exclude_1d=False,
            layer_decay=solver.LAYER_DECAY,
        )
    # fused: one kernel for all parameters, on the CPU too, where the default loops over them.
    options = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, "fused": True}
    if solver.OPTIMIZING_METHOD == "sgd":
        if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
            options |= {"fused": False, "foreach": True}  # torch has no fused SGD of parts
        return torch.optim.SGD(
            parameters,
            momentum=solver.MOMENTUM,
            dampening=solver.DAMPENING,
            nesterov=solver.NESTEROV,
            **options,
        )
    if solver.OPTIMIZING_METHOD == METHOD:
        return adamw_8bit(parameters, solver.BASE_LR, solver.WEIGHT_DECAY)
    adaptive = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if solver.OPTIMIZING_METHOD not in adaptive:
        raise ConfigError(
            f"SOLVER.OPTIMIZING_METHOD {solver.OPTIMIZING_METHOD!r}: choose sgd, adam, adamw or "
            f"{METHOD}"
        )
    return adaptive[solver.OPTIMIZING_METHOD](parameters, **options)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group, times its factor by SOLVER.LAYER_DECAY."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
