"""The table of what was measured, and the lines of the history."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from model_parts.entrants import SKELETON, Setting
from model_parts.turns import Measured, ratios
from timesformer.utils.peak_rates import FLOPS_PER_MAC

OURS = {"eager": "timesformer", "compiled": "timesformer, compiled"}
THEIRS, THEIRS_SAME = "transformers", "transformers, same precision"
HEADER = (
    "what", "clip", "scheme", "precision", "model", "batch", "first s", "clips/s", "TFLOP/s", "MFU",
    "÷ skeleton", "least–most", "× transformers", "least–most", "× same prec.", "GiB held",
    "GiB beside", "theirs",
)  # fmt: skip
NOTE = """\
MFU: {flops} FLOPs for a multiply-add of a forward pass, over the peak.
÷ skeleton: seconds over those of the matrix products alone, by BLAS or oneDNN, what is faster; so
is the peak where it is measured. × transformers: times as fast as theirs in float32 without tf32,
and in the same precision. All are medians of {rounds} rounds in one process; ÷ and × of the ratios
within a round. A forward pass is of normalised clips on the device. A training step is
`train_step`, for both models: uint8 clips go to the device, are normalised there, forward,
backward, clipping, optimizer ({optimizer}).
GiB: of weights and optimizer state, and the most that a pass holds beside them, as torch's
allocators say; "theirs": the latter of transformers in the same precision.
Multiply-adds and skeleton are those of the published model, all patches in the last MLP \
included."""
CLOCKS = {
    "wall": "Seconds are those that pass.",
    "cpu": "Seconds are those of the cores that this process had, over its threads: others used\n"
    "the machine at the time, and what they took isn't in these, but for memory and caches.",
}


class Row(NamedTuple):
    """What was found of a setting.

    Attributes:
        setting: what was measured.
        found: results by contestant.
        macs: multiply-adds of a clip's forward pass.
        peak: TFLOP/s that are 100 %; None where that isn't known.
        peak_by: who says so.
        notes: why something is missing.
        clock: wall or cpu, see `CLOCKS`.
        threads: that the CPU computes with.
    """

    setting: Setting
    found: Mapping[str, Measured]
    macs: int
    peak: float | None
    peak_by: str
    notes: Sequence[str]
    clock: str
    threads: int

    def line(self) -> dict[str, Any]:
        """Return what goes to the history."""
        return {
            "setting": self.setting._asdict(),
            "macs": self.macs,
            "peak_tflops": self.peak,
            "peak_by": self.peak_by,
            "notes": list(self.notes),
            "clock": self.clock,
            "results": {name: asdict(found) for name, found in self.found.items()},
        }

    def cells(self) -> Iterator[tuple[object, ...]]:
        """Yield lines of the table, one for each way in which our model was run."""
        s, found, empty = self.setting, self.found, Measured()
        theirs = found.get(THEIRS, empty)
        same = theirs if s.precision == "fp32" else found.get(THEIRS_SAME, empty)
        for mode, name in OURS.items():
            if name not in found:
                continue
            ours = found[name]
            head = (s.what, f"{s.frames}x{s.side}", s.scheme, s.precision, mode, s.batch)
            if not ours.seconds:
                yield (*head, ours.note, *["–"] * (len(HEADER) - len(head) - 1))
                continue
            rate = s.batch / self.seconds(ours)
            tflops = rate * self.macs * FLOPS_PER_MAC[s.what] / 1e12
            yield (
                *head,
                f"{ours.first:.1f}",
                f"{rate:.3g}",
                f"{tflops:.3g}",
                f"{100 * tflops / self.peak:.1f} %" if self.peak else "–",
                *self._spread(ours, self.fastest(SKELETON)),
                *self._spread(theirs, ours),
                self._spread(same, ours)[0],
                _gib(ours.held),
                _gib(ours.peak),
                same.note or _gib(same.peak),
            )

    def fastest(self, kind: str) -> Measured:
        """Return the fastest of a kind of contestants, whose names begin so."""
        all_of = [m for name, m in self.found.items() if name.startswith(kind) and m.seconds]
        return min(all_of, key=self.seconds, default=Measured())

    def seconds(self, found: Measured) -> float:
        """Return the seconds of the median run, by the row's clock."""
        seconds = statistics.median(found.times(self.clock))
        return seconds / self.threads if self.clock == "cpu" else seconds

    def _spread(self, above: Measured, below: Measured) -> tuple[str, str]:
        """Return the median, and the least and greatest ratio of seconds of the same rounds."""
        values = ratios(above, below, self.clock)
        if not values:
            return "–", "–"
        return f"{statistics.median(values):.2f}", f"{values[0]:.2f}–{values[-1]:.2f}"


def _gib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**30:.2f}"
