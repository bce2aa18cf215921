"""DropPath and Dropout that draw the same however a batch is split, compiled or not.

Shape letters: B batch. `DropPath` computes what timm's does, from the same random numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DropPath", "Dropout", "Dropping", "set_batch_part"]


class Dropping(nn.Module):
    """Draws what is dropped of a batch, which may be one of the equal parts of a larger one.

    Such are those of several processes, or come one after the other (`set_batch_part`). What is
    drawn for a row is the same however the larger batch is split, if all parts are seeded alike:
    each draws for the rows of all, and takes its own.

    Attributes:
        part: of the larger batch, from 0.
        parts: that it has.
        told: share that is kept, part and parts as a tensor (3,) on the CPU, which compiled code
            reads: as plain numbers it would be compiled again for each block and micro-batch.
    """

    part, parts = 0, 1
    told: Tensor | None = None

    @property
    def share(self) -> float:
        """What is kept, from 0 to 1."""
        raise NotImplementedError

    def tell(self) -> None:
        """Say to compiled code what comes next."""
        numbers = (self.share, self.part, self.parts)
        self.told = torch.tensor(numbers, dtype=torch.float64, device="cpu")

    def keep(self, x: Tensor, each_row: bool) -> Tensor:
        """Return factors for x (B, …): 0 where dropped, else 1 / share.

        Args:
            x: a batch.
            each_row: a row is dropped or kept as a whole, so they are (B, 1, …); else each element
                by itself.
        """
        if torch.compiler.is_compiling() and self.told is not None:
            drawn: Tensor = torch.ops.timesformer.keep(x.detach(), each_row, self.told)
            return drawn
        return _keep(x, each_row, self.share, self.part, self.parts)


def _keep(x: Tensor, each_row: bool, share: float, part: int, parts: int) -> Tensor:
    rows = x.shape[0]
    shape = (1,) * (x.ndim - 1) if each_row else tuple(x.shape[1:])
    if share == 1:  # nothing is drawn: a model without such a layer draws nothing either
        return x.new_ones((rows, *shape))
    kept = x.new_empty((parts * rows, *shape)).bernoulli_(share)
    kept = kept[part * rows : (part + 1) * rows]
    return kept.div_(share) if share > 0 else kept


# To the compiler this is a call that it doesn't look into: its numbers are those of eager code, and
# drawn as often. The tag keeps it from taking two calls for one.
@torch.library.custom_op(
    "timesformer::keep", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def _keep_told(x: Tensor, each_row: bool, told: Tensor) -> Tensor:
    share, part, parts = told.tolist()
    kept = _keep(x, each_row, share, int(part), int(parts))
    return kept.clone() if parts > 1 else kept  # what it returns is nothing's part


@_keep_told.register_fake
def _(x: Tensor, each_row: bool, told: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], *((1,) * (x.ndim - 1) if each_row else x.shape[1:])))


class DropPath(Dropping):
    """Stochastic depth (arXiv 1603.09382): while training, some rows of a batch become zero.

    The others are divided by the share that is kept, so the mean stays.

    Args:
        drop_prob: probability of a row to be dropped.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    @property
    def share(self) -> float:
        """What is kept, from 0 to 1."""
        return 1 - self.drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, …) to the same shape; each row is dropped or kept as a whole."""
        if not self.training or (self.told is None and self.drop_prob == 0):
            return x
        return x * self.keep(x, each_row=True)

    def extra_repr(self) -> str:
        """Return what printing shows."""
        return f"drop_prob={self.drop_prob:.3f}"


class Dropout(Dropping):
    """torch's dropout, which doesn't depend on how a batch is split into parts.

    Args:
        p: probability of an element to become zero, while training.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    @property
    def share(self) -> float:
        """What is kept, from 0 to 1."""
        return 1 - self.p

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, …) to the same shape; the elements that are kept are divided by 1 - p."""
        if not self.training or (self.told is None and self.p == 0):
            return x
        return x * self.keep(x, each_row=False)

    def extra_repr(self) -> str:
        """Return what printing shows."""
        return f"p={self.p}"


def set_batch_part(model: nn.Module, part: int, parts: int) -> None:
    """Tell every `DropPath` and `Dropout` of `model` which part of a batch comes next, in place.

    Args:
        model: has them.
        part: from 0.
        parts: of equal size, that make the larger batch in their order.
    """
    for module in model.modules():
        if isinstance(module, Dropping):
            module.part, module.parts = part, parts
