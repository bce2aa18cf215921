"""The matrix products of a model and nothing else: what bounds an implementation of all of it.

The products are read off a forward pass on the meta device, so a new scheme needs nothing here.
They are computed on random numbers, for some processors are faster on zeros. Those of attention
come in pieces, as a fused kernel computes them: their scores needn't fit into memory.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from timesformer.models.attention.layers import set_fused_attention

PIECE = 2**23
"""Numbers in the larger of left factor and result of a piece of an attention's product."""

_aten = torch.ops.aten


class Product(NamedTuple):
    """Some products of (rows × inner) by (inner × columns) matrices.

    Attributes:
        batch: how many.
        rows: of the left factor.
        inner: its columns.
        columns: of the right factor.
        left_t: the left factor lies transposed in memory.
        right_t: the right one does, as weights of linear layers do.
        weight: number of the weight that is the right factor; None for what is computed.
    """

    batch: int
    rows: int
    inner: int
    columns: int
    left_t: bool = False
    right_t: bool = False
    weight: int | None = None

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.batch * self.rows * self.inner * self.columns

    def backward(self, first: bool) -> list[Product]:
        """Return the products of the backward pass: gradients of both factors.

        Args:
            first: the left factor is the clips, which need none.
        """
        batch, rows, inner, columns, _, right_t, weight = self
        of_right = Product(batch, inner, rows, columns, left_t=True)
        of_left = Product(batch, rows, columns, inner, right_t=not right_t, weight=weight)
        return [of_right] if first else [of_right, of_left]


def products_of(model: nn.Module, clip_shape: tuple[int, ...], batch: int) -> list[Product]:
    """Return the products of a forward pass, in order.

    Args:
        model: on any device; a copy is looked at.
        clip_shape: (C, T, H, W).
        batch: clips in the pass.
    """
    model = copy.deepcopy(model).eval().to("meta")
    set_fused_attention(model, False)
    # Whoever looks sees the published model: of the last block, too, what nobody reads.
    looking = register_module_forward_hook(lambda *_: None)
    with looking, torch.no_grad(), _Recorder() as recorder:
        model(torch.empty(batch, *clip_shape, device="meta"))
    return recorder.products


def of_training(products: Sequence[Product]) -> list[Product]:
    """Return the products of a training step: forward, and backward in the other direction."""
    back = [p.backward(i == 0) for i, p in enumerate(products)]
    return [*products, *(p for pair in reversed(back) for p in pair)]


def by_onednn(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the product of float32 matrices by oneDNN, which takes no `out`."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.mT, None, "none", [], "")
    return result


class _Recorder(TorchDispatchMode):
    """Notes the products that are computed under it."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator in (_aten.mm, _aten.addmm):
            left, right = args[-2:]
            self._add(1, *left.shape, right, weight=len(self.products))
        elif operator in (_aten.bmm, _aten.baddbmm):
            left, right = args[-2:]
            self._add(*left.shape, right)
        elif operator is _aten.convolution:  # its weight (D, C, P, P) as a matrix (D, C·P·P)
            weight = args[1].flatten(1).t()
            rows = out.numel() // weight.shape[1]
            self._add(1, rows, weight.shape[0], weight, weight=len(self.products))
        return out

    def _add(
        self, batch: int, rows: int, inner: int, right: Tensor, weight: int | None = None
    ) -> None:
        columns, right_t = right.shape[-1], right.stride(-1) != 1
        self.products.append(Product(batch, rows, inner, columns, right_t=right_t, weight=weight))


class Skeleton:
    """Computes products one after the other, on memory that is there before.

    Every weight has memory of its own, as in a model, and is read from there once a pass; what is
    computed shares some by its shape.

    Args:
        products: what to compute.
        device: where.
        dtype: of all factors and results.
        onednn: compute those with weights by oneDNN, rather than by torch's BLAS.
    """

    def __init__(
        self,
        products: Sequence[Product],
        device: torch.device,
        dtype: torch.dtype,
        onednn: bool = False,
    ) -> None:
        self.device, self.dtype, self.onednn = device, dtype, onednn
        self.macs = sum(p.macs for p in products)
        self._buffers: dict[tuple[object, ...], Tensor] = {}
        self._calls = [call for p in products for call in self._calls_of(p)]

    @torch.no_grad()
    def run(self) -> Tensor:
        """Compute all; return the last result."""
        for function, left, right, out in self._calls:
            result: Tensor = function(left, right, out=out)
        return result

    def _calls_of(self, product: Product) -> list[tuple[Any, Tensor, Tensor, Tensor]]:
        batch, rows, inner, columns, left_t, right_t, weight = product
        if batch == 1:
            left = self._random("left", (rows, inner), left_t)
            right = self._random(weight, (inner, columns), right_t)
            out = self._random("out", (rows, columns), False)
            return [(by_onednn if self.onednn else torch.mm, left, right, out)]
        longest = max(inner, columns)
        rows_once = max(1, min(rows, PIECE // longest))
        batch_once = max(1, min(batch, PIECE // (rows_once * longest)))
        left = self._random("left", (batch_once, rows_once, inner), left_t)
        right = self._random("right", (batch_once, inner, columns), right_t)
        out = self._random("out", (batch_once, rows_once, columns), False)
        calls = []
        for start in range(0, batch, batch_once):
            b = min(batch_once, batch - start)
            for row in range(0, rows, rows_once):
                r = min(rows_once, rows - row)
                calls.append((torch.bmm, left[:b, :r], right[:b], out[:b, :r]))
        return calls

    def _random(self, name: object, shape: tuple[int, ...], transposed: bool) -> Tensor:
        """Return a matrix of that name and shape, always the same one."""
        stored = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
        key = (name, stored)
        if key not in self._buffers:
            numbers = torch.randn(stored, device=self.device) * shape[-2] ** -0.5
            self._buffers[key] = numbers.to(self.dtype)
        return self._buffers[key].mT if transposed else self._buffers[key]
