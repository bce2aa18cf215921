"""A trace of the first steps after each start of a run, to hold a repetition against.

OUTPUT_DIR/trace.jsonl has a line for each start, with the config and what the weights were, and one
for each of its first TRAIN.TRACE_STEPS steps: what the clips were, loss and gradient norm to the
last bit, and after steps 1, 2, 4, 8, … and the last one what the weights were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.datasets.loader import Batch
from timesformer.engine.sharding import whole_state
from timesformer.utils.checkpoint import bare
from timesformer.utils.distributed import is_main
from timesformer.utils.logging import append_line, get_logger
from timesformer.utils.tensors import raw_bytes

logger = get_logger(__name__)

NAME = "trace.jsonl"
_DIGITS = 16  # of a tensor's digest: 64 bits tell apart what isn't made to look alike

Fingerprint = list[Any]
"""[the first digits of a tensor's SHA-256, its L2 norm]."""


class Enough(Exception):  # noqa: N818
    """So many steps were to be made, and are."""


def fingerprints(state: Mapping[str, Tensor]) -> list[Fingerprint]:
    """Return what tells each tensor from others, and how large it is."""
    found: list[Fingerprint] = []
    for value in state.values():
        numbers = value if value.is_floating_point() else value.double()  # counters of BatchNorm
        norm = torch.linalg.vector_norm(numbers, dtype=torch.float64) if value.numel() else 0.0
        found.append([hashlib.sha256(raw_bytes(value)).hexdigest()[:_DIGITS], float(norm)])
    return found


def digest(prints: Sequence[Fingerprint]) -> str:
    """Return one SHA-256 for all tensors."""
    return hashlib.sha256("".join(one[0] for one in prints).encode()).hexdigest()


class Trace:
    """Writes the trace, in the main process.

    Args:
        folder: OUTPUT_DIR.
        steps: to be traced.
        ending: end the run after them.
    """

    def __init__(self, folder: str | Path, steps: int, ending: bool = False) -> None:
        self.path = Path(folder) / NAME
        self.steps = steps
        self.ending = ending
        self.done = 0
        self.told = False

    def begin(self, line: Mapping[str, Any]) -> None:
        """Write the line of a start."""
        if self.steps and is_main():
            self._write(line)

    def note(
        self,
        model: nn.Module,
        group: Sequence[Batch],
        place: tuple[int, int],
        loss: float,
        norm: float,
    ) -> None:
        """Write the line of a step, if it is one of the first.

        Args:
            model: as it is after it.
            group: this rank's batches.
            place: epoch and step, from 0.
            loss: summed over the clips of all ranks.
            norm: of the gradient.

        Raises:
            Enough: it was the last one that was wanted.
        """
        self.done += 1
        if self.done > self.steps:
            return
        weights: Mapping[str, Tensor] = {}
        if self.done == self.steps or not self.done & (self.done - 1):
            weights = whole_state(bare(model).state_dict())  # all ranks take part
        if is_main():
            line = {"step": self.done, "at": [place[0] + 1, place[1] + 1], "clips": _clips(group)}
            line |= {"loss": loss.hex(), "norm": norm.hex()}
            if weights:
                line["weights"] = fingerprints(weights)
            self._write(line)
        if self.ending and self.done == self.steps:
            raise Enough

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            append_line(self.path, json.dumps(line))
        except OSError as error:
            if not self.told:
                self.told = True
                logger.warning("%s: can't be written: %s", self.path, error.strerror)


def _clips(group: Sequence[Batch]) -> str:
    """Return a digest of a rank's pixels, before augmentation, and their labels."""
    found = hashlib.sha256()
    for pixels, labels, index, _ in group:
        for tensor in (pixels, labels, index):
            found.update(raw_bytes(tensor))
    return found.hexdigest()[:_DIGITS]
