"""Low-rank additions to Linear layers whose own weights stay (LoRA, arXiv 2106.09685).

A layer computes W x + b + (alpha / r) B A x. A is (r, inputs), as torch makes a Linear; B is
(outputs, r) and starts at zero, so a model starts as it was. The names of its own weights don't
change: `qkv.weight` has `qkv.lora_a`, `qkv.lora_b` and `qkv.lora_scale` beside it. Whoever reads
weights gets them merged into one matrix (`merged`), so nothing but training knows of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.models.attention.linear import Linear
from timesformer.utils.errors import ConfigError
from timesformer.utils.patterns import selected

_A, _B, _SCALE = ("lora_a", "lora_b", "lora_scale")


class LoRALinear(Linear):
    """A Linear with a low-rank addition.

    Attributes:
        lora_a: A (r, inputs).
        lora_b: B (outputs, r).
        lora_scale: alpha / r, saved beside them.
    """

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    lora_scale: Tensor

    @classmethod
    def around(cls, linear: nn.Linear, rank: int, alpha: float) -> LoRALinear:
        """Return a layer with the weights of another, themselves, and an addition of zero."""
        layer = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        layer.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        layer.lora_b = nn.Parameter(linear.weight.new_empty(linear.out_features, rank))
        nn.init.kaiming_uniform_(layer.lora_a, a=math.sqrt(5))
        nn.init.zeros_(layer.lora_b)
        layer.register_buffer(_SCALE, linear.weight.new_tensor(alpha / rank))
        return layer.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """Map (…, inputs) to (…, outputs)."""
        added = F.linear(F.linear(input, self.lora_a), self.lora_b)
        return super().forward(input) + self.lora_scale * added

    def extra_repr(self) -> str:
        """Return what printing shows."""
        return f"{super().extra_repr()}, rank={self.lora_a.shape[0]}"


def add_lora(model: nn.Module, rank: int, alpha: float, targets: str) -> None:
    """Give Linear layers of a model additions, in place; their own weights are frozen.

    Args:
        model: the model.
        rank: r.
        alpha: what is divided by r is the factor of the additions.
        targets: patterns of layers, see `utils.patterns`.

    Raises:
        ConfigError: no layer is called so, or named at all, or one is too small.
    """
    if not targets:
        raise ConfigError(
            f"LORA.RANK {rank} needs layers to add to, and LORA.TARGETS is empty: leave that out, "
            "or set LORA.RANK 0"
        )
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module) in (nn.Linear, Linear)
    }
    for name in sorted(selected(linears, targets, "LORA.TARGETS", "Linear layer")):
        linear, (parent, _, own) = linears[name], name.rpartition(".")
        if rank > min(linear.in_features, linear.out_features):
            raise ConfigError(
                f"LORA.RANK {rank}: {name} is of {linear.in_features} inputs and "
                f"{linear.out_features} outputs, and has no higher rank"
            )
        setattr(model.get_submodule(parent), own, LoRALinear.around(linear, rank, alpha))
        for parameter in linear.parameters():
            parameter.requires_grad_(False)


def check_used(model: nn.Module, shape: Sequence[int]) -> None:
    """Make sure that a model calls its layers with additions.

    Some (torchvision's Swin) read a layer's weights and multiply by themselves: what is added would
    never be trained.

    Args:
        model: with additions, on the meta device.
        shape: of a clip that it takes.

    Raises:
        ConfigError: a layer isn't called.
    """
    layers = {m: name for name, m in model.named_modules() if isinstance(m, LoRALinear)}
    unused = dict(layers)
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, _: unused.pop(layer, None) and None)
    with torch.no_grad():
        model.eval()(torch.empty(1, *shape, device="meta"))
    if unused:
        raise ConfigError(
            f"LORA.TARGETS: the model reads the weights of {', '.join([*unused.values()][:3])} "
            f"({len(unused)} of {len(layers)} layers) itself, so that additions would have no "
            "effect: take others, or LORA.RANK 0 and TRAIN.FREEZE"
        )


def is_added(name: str) -> bool:
    """Whether a weight of that name is of an addition."""
    return name.rpartition(".")[2] in (_A, _B, _SCALE)


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict without additions."""
    return {name: value for name, value in model.state_dict().items() if not is_added(name)}


def merged(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state dict in which additions are added to the weights that they are for.

    One without is returned itself; none is changed. One that lacks a part is left as it is, for the
    reader to complain of.
    """
    layers = [name.removesuffix(f".{_B}") for name in map(str, state) if name.endswith(f".{_B}")]
    plain = {name: value for name, value in state.items() if not is_added(str(name))}
    for layer in layers:
        parts = (state.get(f"{layer}.{part}") for part in ("weight", _A, _B, _SCALE))
        needed = [value for value in parts if isinstance(value, Tensor)]
        if len(needed) < 4:
            return state
        weight, a, b, scale = needed
        if (b.shape[0], a.shape[-1]) != tuple(weight.shape) or b.shape[-1] != a.shape[0]:
            return state
        added = scale.float() * (b.float() @ a.float())
        plain[f"{layer}.weight"] = (weight.float() + added).to(weight.dtype)
    return plain if layers else state
