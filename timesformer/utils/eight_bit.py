"""AdamW whose moments have 8 bits (Dettmers et al., arXiv 2110.02861): that of bitsandbytes.

Each block of 256 numbers has a scale of its own. Tensors of fewer than 4,096 numbers (biases,
norms) keep 32 bits, since there would be nothing to gain.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from timesformer.utils.errors import ConfigError, WeightsError

METHOD = "adamw8bit"
LEAST, BLOCK, LEVELS = 4096, 256, 256
_WRAPPED = "__bnb_optimizer_quant_state__"  # of a parameter, in their state dicts


def adamw_8bit(parameters: Sequence[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Make the optimizer.

    Raises:
        ConfigError: bitsandbytes isn't installed.
    """
    # On the CPU it complains at its import of a kernel for layers that nothing here has.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"SOLVER.OPTIMIZING_METHOD {METHOD} is bitsandbytes', which can't be imported "
            f"({error!s:.200}): pip install 'timesformer[eightbit]', or take adamw"
        ) from error
    return AdamW8bit(parameters, lr=lr, weight_decay=weight_decay, min_8bit_size=LEAST)


def is_eight_bit(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is one of these."""
    return type(optimizer).__name__ == "AdamW8bit"


def gathered_bytes(parameter: Tensor) -> int:
    """Return the bytes that are kept for a parameter after a step."""
    shapes = _shapes(parameter)
    return sum(torch.Size(shape).numel() * kind.itemsize for shape, kind in shapes.values())


def _shapes(parameter: Tensor) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return by name the shapes and types of what is kept for a parameter."""
    number, shape = parameter.numel(), tuple(parameter.shape)
    if number < LEAST:
        return {f"state{i}": (shape, torch.float32) for i in (1, 2)}
    kept: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for i in (1, 2):
        kept[f"state{i}"] = (shape, torch.uint8)
        kept[f"qmap{i}"] = ((LEVELS,), torch.float32)
        kept[f"absmax{i}"] = ((-(-number // BLOCK),), torch.float32)
    return kept


def fitting_8bit_state(
    path: object, saved: Any, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Do what `utils.tensors.fitting_state` does, for one of these.

    Raises:
        WeightsError: as it does.
    """
    wrong = f"{path}: its optimizer state doesn't fit SOLVER.OPTIMIZING_METHOD or the model"
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        ids = [i for group in saved["param_groups"] for i in group["params"]]
        gathered, own = saved["state"], optimizer.state_dict()["param_groups"]
        groups = [len(group["params"]) for group in saved["param_groups"]]
    except (LookupError, TypeError) as error:
        raise WeightsError(f"{wrong} ({type(error).__name__})") from error
    if groups != [len(group["params"]) for group in own] or not gathered.keys() <= {*ids}:
        raise WeightsError(f"{wrong} (it has parameters in groups of {groups})")
    for number, parameter in zip(ids, parameters, strict=True):
        if number in gathered and not _fits(gathered[number], parameter):
            raise WeightsError(f"{wrong} (what it has of parameter {number})")
    settings = [
        mine | {"params": theirs["params"]}
        for mine, theirs in zip(own, saved["param_groups"], strict=True)
    ]
    return {"state": gathered, "param_groups": settings}


def _fits(kept: Any, parameter: Tensor) -> bool:
    if not isinstance(kept, Mapping) or type(kept.get("step")) is not int or kept["step"] < 0:
        return False
    tensors, expected = kept.get(_WRAPPED), _shapes(parameter)
    if not isinstance(tensors, Mapping) or {*kept} != {"step", _WRAPPED}:
        return False
    return tensors.keys() == expected.keys() and all(
        isinstance(value, Tensor)
        and (tuple(value.shape), value.dtype) == expected[name]
        and (not value.is_floating_point() or bool(value.isfinite().all()))
        for name, value in tensors.items()
    )
