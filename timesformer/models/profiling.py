"""What a model costs: parameters, multiply-adds, memory. Nothing is computed, so any size will do.

A clip shape is (C, T, H, W). A MAC is one multiplication and one addition; FLOPs = 2 × MACs.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from timesformer.models.attention.layers import set_fused_attention
from timesformer.utils.precision import autocast
from timesformer.utils.text import format_table


class Cost(NamedTuple):
    """Cost of a model on clips of one shape.

    Attributes:
        params: number of parameters.
        macs: multiply-adds of one clip, forward.
        weight_bytes: size of the parameters.
        activation_bytes: what one more clip in the batch keeps until the backward pass.
    """

    params: int
    macs: int
    weight_bytes: int
    activation_bytes: int


def profile(
    model: nn.Module, view_shape: tuple[int, ...], clip_shape: tuple[int, ...] | None = None
) -> Cost:
    """Work out the cost of a model.

    Args:
        model: on the meta device, so that it takes no memory either.
        view_shape: clip that `macs` is for.
        clip_shape: clip that `activation_bytes` is for; `view_shape` when None.
    """
    return Cost(
        params=count_parameters(model),
        macs=count_macs(model, view_shape),
        weight_bytes=sum(p.nbytes for p in model.parameters()),
        activation_bytes=activation_bytes(model, clip_shape or view_shape),
    )


def count_parameters(model: nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, clip_shape: tuple[int, ...]) -> int:
    """Multiply-adds of matrix products and convolutions in one forward pass, by torch."""
    return int(_macs_by_module(model, clip_shape)[""])


def cost_table(name: str, model: nn.Module, clip_shape: tuple[int, ...]) -> str:
    """Return a short table of a model and its parts: parameters and multiply-adds of a clip.

    Args:
        name: of the whole.
        model: on the meta device.
        clip_shape: (C, T, H, W).
    """
    held = "model." if hasattr(model, "model") else ""
    macs, whole = _macs_by_module(model, clip_shape), getattr(model, "model", model)
    parts = {part: module for part, module in whole.named_children() if [*module.parameters()]}
    counts = {part: count_parameters(module) for part, module in parts.items()}
    total = count_parameters(model)
    rows: list[tuple[str, ...]] = [("model", "params", "GMACs/clip")]
    rows += [(part, f"{n:,}", f"{macs[held + part] / 1e9:.3g}") for part, n in counts.items()]
    if rest := total - sum(counts.values()):
        rows.append(("tokens and positions", f"{rest:,}", "0"))
    return format_table([*rows, (name, f"{total:,}", f"{macs[''] / 1e9:.3g}")])


def _macs_by_module(model: nn.Module, clip_shape: tuple[int, ...]) -> Mapping[str, int]:
    """Count multiply-adds by the name of every module; "" is the whole.

    Attention takes the plain path here, whose products are those of the fused ones.
    """
    model = copy.deepcopy(model).eval().to("meta")
    set_fused_attention(model, False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, *clip_shape, device="meta"))
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    whole = type(model).__name__
    macs = {name.removeprefix(f"{whole}."): n // 2 for name, n in flops.items() if name != whole}
    return defaultdict(int, macs | {"": flops["Global"] // 2})


def activation_bytes(model: nn.Module, clip_shape: tuple[int, ...]) -> int:
    """Memory that one more clip in a training batch keeps for the backward pass, in bytes.

    In float32; for others see `held_bytes`.

    Args:
        model: on the meta device.
        clip_shape: (C, T, H, W).
    """
    return held_bytes(model, clip_shape).per_clip


class Held(NamedTuple):
    """Bytes that a forward pass in training takes, beside the weights."""

    fixed: int  # whatever the batch, e.g. weights that are rounded for the pass
    per_clip: int  # of each clip, kept for the backward pass
    peak: int  # of each clip, at the moment when it is most


def held_bytes(model: nn.Module, clip_shape: tuple[int, ...], amp: str = "none") -> Held:
    """Work out what a forward pass in training takes.

    With fused attention, as torch runs it on the CPU. Parameters that are frozen keep what has to
    be kept without them.

    Args:
        model: on the meta device.
        clip_shape: (C, T, H, W).
        amp: none, bf16 or fp16, which takes what bf16 does.
    """
    model = copy.deepcopy(model).train()
    held, peaks, cpu = [], [], torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True):  # real operators, no data
        model.to_empty(device="cpu")
        own = {StorageWeakRef(p.untyped_storage()).cdata for p in model.parameters()}
        for batch in (2, 3):  # not 1: a batch of one spares some copies
            clips = torch.empty(batch, *clip_shape)
            with (
                PeakStorages(own) as live,
                autocast(cpu, "none" if amp == "none" else "bf16"),
            ):
                logits = model(clips * 1)
                held.append(live.total_bytes())
            peaks.append(live.peak)
            del logits
    per_clip = held[1] - held[0]
    return Held(held[0] - 2 * per_clip, per_clip, peaks[1] - peaks[0])


class LiveStorages(TorchDispatchMode):
    """Knows which of the storages that were made under it are still alive.

    Unlike hooks on saved tensors, it sees what activation checkpointing keeps.

    Args:
        except_for: storages that don't count, e.g. of weights, of which operators make views.
    """

    def __init__(self, except_for: Collection[int] = ()) -> None:
        super().__init__()
        self._except_for = except_for
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata not in self._except_for:
                    self._storages.setdefault(reference.cdata, (reference, storage.nbytes()))
        return out

    def total_bytes(self) -> int:
        """Sum over all that are alive."""
        return sum(size for ref, size in self._storages.values() if not ref.expired())


class PeakStorages(LiveStorages):
    """Knows the greatest sum of what was alive after any operator."""

    def __init__(self, except_for: Collection[int] = ()) -> None:
        super().__init__(except_for)
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known = len(self._storages)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if len(self._storages) > known:  # else nothing was made, and it isn't more than before
            self._storages = {k: v for k, v in self._storages.items() if not v[0].expired()}
            self.peak = max(self.peak, sum(size for _, size in self._storages.values()))
        return out
