"""A linear layer that computes by oneDNN on CPUs where it is faster than what torch takes.

torch multiplies float32 matrices by its BLAS, and copies the bias into the result before. oneDNN,
which torch has for its compiled graphs, adds the bias as it goes, and its products are faster on
some processors (docs/performance.md). It takes the weights as they lie in memory, so nothing is
kept besides them that could be out of date.

Shape letters: D inputs, E outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from timesformer.utils.processor import processor_name

__all__ = ["Linear"]

AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# Intel's BLAS is the faster one on Intel's processors, and the slower one on others.
PAYS = AVAILABLE and not (torch.backends.mkl.is_available() and "Intel" in processor_name())
LEAST = 2**26  # multiply-adds; below, what a call costs outweighs what it saves


class Linear(nn.Linear):
    """torch's linear layer: its weights, names, start and gradients; on the CPU by oneDNN.

    `torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)` turns oneDNN off, here as
    everywhere in torch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, E)."""
        if not _by_onednn(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        return _linear(x, self.weight, self.bias)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Say whether oneDNN's operator will do: for large products of plain float32 tensors.

    Compilers, exporters, torch.func, forward-mode derivatives and what listens to operators
    (counters of FLOPs, selective checkpointing) know torch's own one, and get it; so does input
    of another width, of which it complains in words.
    """
    return bool(
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and type(x) is Tensor
        and type(weight) in (nn.Parameter, Tensor)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= LEAST
        and x.shape[-1] == weight.shape[1]
        and PAYS
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0  # else tangents would be lost without a word
        and not torch._C._len_torch_dispatch_stack()
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        # Of rows alone: what is a view within the function can't be changed in place afterwards.
        rows: Tensor = _Differentiable.apply(x.reshape(-1, x.shape[-1]), weight, bias)
        return rows.reshape(*x.shape[:-1], weight.shape[0])
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x · weightᵀ + bias; autograd doesn't know the operator."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _Differentiable(torch.autograd.Function):
    """The product of rows (N, D) with its gradients, by oneDNN too; gradients of gradients as well.

    Several gradients at once (`is_grads_batched`) have a dimension that oneDNN's operator doesn't
    know: torch computes them one after the other.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        (rows,) = grads
        if ctx.needs_input_grad[0]:
            by_x = _linear(rows, weight.t(), None)
        if ctx.needs_input_grad[1]:
            by_weight = _linear(rows.t(), x.t(), None)
        if ctx.needs_input_grad[2]:
            by_bias = rows.sum(0)
        return by_x, by_weight, by_bias
