"""Steps whose loss or gradient is not finite: they end the run, or are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from timesformer.datasets.lists.records import Record, named
from timesformer.utils.distributed import gather_objects, is_main
from timesformer.utils.errors import TrainingError
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted

logger = get_logger(__name__)

IN_A_ROW = 10  # steps that are left out one after the other; more of them aren't chance
NAMED = 4  # videos whose files a message names
LISTED = 64  # rows that it lists
ADVICE = (
    "lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_EPOCHS, set SOLVER.CLIP_GRAD_L2NORM, or look at "
    "these videos"
)


class Part(NamedTuple):
    """What a forward pass of a step gave: logits (B, K), its loss, and rows of the list (B,)."""

    logits: Tensor
    loss: Tensor
    rows: Tensor


class NonFinite:
    """Knows what to do with a step whose loss or gradient is not finite on some rank.

    Args:
        policy: TRAIN.NONFINITE, raise or skip.
        records: the training videos.
        of: what they are called.

    Attributes:
        in_a_row: steps left out since the last one that was taken.
    """

    def __init__(
        self, policy: str, records: Sequence[Record], of: str = "the training list"
    ) -> None:
        self.policy = policy
        self.records = records
        self.of = of
        self.in_a_row = 0
        self._kept: list[Tensor] = []

    def before(self, model: nn.Module) -> None:
        """Keep what a forward pass changes by itself: the running statistics of BatchNorm."""
        if not self._kept:
            self._kept = [buffer.clone() for buffer in model.buffers()]
        for kept, buffer in zip(self._kept, model.buffers(), strict=True):
            kept.copy_(buffer)

    def leave_out(self, what: str, where: str, parts: Sequence[Part], model: nn.Module) -> None:
        """Leave a step out on all ranks, with the model as it was before; or end the run.

        Args:
            what: is not finite, in words.
            where: epoch and step.
            parts: of this rank.
            model: the model.

        Raises:
            TrainingError: on all ranks alike, as TRAIN.NONFINITE says, or since too many steps in a
                row were left out.
        """
        for kept, buffer in zip(self._kept, model.buffers(), strict=True):
            buffer.copy_(kept)
        told = gather_objects((suspects(parts), _listed([p.rows for p in parts])))
        # A gradient is that of all ranks: it doesn't tell whose video spoilt it.
        found = [i for ours, _ in told for i in ours] or [i for _, ours in told for i in ours]
        whose = self._in_words(list(dict.fromkeys(found)))
        if self.policy == "raise":
            raise TrainingError(
                f"{what} in {where} ({whose}): {ADVICE}. TRAIN.NONFINITE skip leaves such steps out"
            )
        self.in_a_row += 1
        if self.in_a_row >= IN_A_ROW:
            raise TrainingError(
                f"{what} in {where} ({whose}), as in the {IN_A_ROW - 1} steps before, which were "
                f"left out: {ADVICE}"
            )
        if is_main():
            logger.warning("%s in %s: this step is left out (%s)", what, where, whose)

    def _in_words(self, found: Sequence[int]) -> str:
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        names = ", ".join(named(self.records, i) for i in found[:NAMED])
        several = f", of {counted(len(found), 'video')} the first" if len(found) > NAMED else ""
        return f"rows {list(found[:LISTED])}{more} of {self.of}{several}: {names}"


def suspects(parts: Sequence[Part]) -> list[int]:
    """Return the rows of the training list whose own scores are not finite, or else their loss."""
    alone = [p.rows[~p.logits.isfinite().all(1).cpu()] for p in parts]
    whole = [p.rows for p in parts if not bool(torch.isfinite(p.loss))]
    return _listed(alone) or _listed(whole)


def _listed(indices: Sequence[Tensor]) -> list[int]:
    return [i for index in indices for i in index.tolist()]
