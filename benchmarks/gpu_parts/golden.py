"""Compare the tiny golden model with the published implementation's numbers, in every precision.

python benchmarks/gpu_parts/golden.py --device cuda

The numbers (tests/data/model_tiny.npz) are from the published code on a CPU in float32: logits of
five clips, norms of all gradients, and the losses of eight training steps. Exits with 1 if one
differs by more than its tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from golden_model import (
    CASES,
    SCHEMES,
    SOLVERS,
    STEPS,
    gradient_batch,
    solver_cfg,
    step_batch,
    tiny_model,
)
from golden_recipe import clip_for, fill_
from torch import Tensor, nn

from timesformer.engine.losses import build_loss
from timesformer.engine.optimizer import construct_optimizer
from timesformer.utils.text import format_table

NUMBERS = Path(__file__).resolve().parents[2] / "tests" / "data" / "model_tiny.npz"
HEADER = ("scheme", "precision", *CASES, "gradients", *SOLVERS, "logits ≤", "rest ≤", "")


class Precision(NamedTuple):
    """How products are computed, and how far numbers may be off.

    The tolerances of the lower precisions are about four times the greatest difference that
    rounding all factors of all products to them makes on a CPU. Logits are up to 0.7, losses 2 to
    4, and the norm of the whole gradient is 9.4.
    """

    name: str
    amp: str  # as TRAIN.AMP
    products: str  # of float32 matrices: ieee or tf32
    logits: float
    rest: float  # gradient norms and losses


PRECISIONS = (
    Precision("fp32", "none", "ieee", 1e-5, 1e-4),
    Precision("tf32", "none", "tf32", 3e-3, 3e-3),
    Precision("bf16", "bf16", "ieee", 4e-2, 4e-2),
    Precision("fp16", "fp16", "ieee", 4e-3, 4e-3),
)
ON_CPU = ("fp32", "bf16")
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Return what training and tests run under; not theirs, which can't be had without videos."""
    return torch.autocast(device.type, AMP_TYPES.get(amp), enabled=amp in AMP_TYPES)


class Stepper:
    """Do optimizer steps, again and again until loss scaling finds a scale without overflow.

    A step that the scaler skips leaves the weights alone, so the losses stay comparable.
    """

    def __init__(self, model: nn.Module, precision: Precision, optimizer: str) -> None:
        cfg = solver_cfg(optimizer)
        self.device = next(model.parameters()).device
        self.model, self.precision = model, precision
        self.solver, self.criterion = construct_optimizer(model, cfg), build_loss(cfg)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision.amp == "fp16")
        self.skipped = 0

    def loss_and_gradients(self, clip: Tensor, labels: Tensor) -> float:
        """Leave unscaled, finite gradients in the parameters."""
        while True:
            self.solver.zero_grad()
            with autocast(self.device, self.precision.amp):
                logits = self.model(clip.to(self.device)).float()
                loss = self.criterion(logits, labels.to(self.device))
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.solver)
            finite = all(bool(p.grad.isfinite().all()) for p in self.model.parameters())
            if finite or self.skipped > 20:
                return loss.item()
            self.scaler.step(self.solver)
            self.scaler.update()
            self.skipped += 1

    def step(self, clip: Tensor, labels: Tensor) -> float:
        """Return the loss before the step."""
        loss = self.loss_and_gradients(clip, labels)
        self.scaler.step(self.solver)
        self.scaler.update()
        return loss


def set_products(kind: str) -> None:
    """Multiply float32 matrices exactly (ieee) or with 10 bits of the factors (tf32)."""
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind


@torch.no_grad()
def logit_difference(
    model: nn.Module, device: torch.device, precision: Precision, case: str, expected: np.ndarray
) -> float:
    """Return the greatest difference of a clip's logits."""
    with autocast(device, precision.amp):
        logits = model.eval()(clip_for(case, CASES[case], 0).to(device))
    return float(np.abs(logits.float().cpu().numpy() - expected).max())


def gradient_difference(
    model: nn.Module, precision: Precision, scheme: str, numbers: Mapping[str, np.ndarray]
) -> tuple[float, int]:
    """Return the greatest difference of a parameter's gradient norm, and the steps skipped."""
    stepper = Stepper(model.train(), precision, "sgd")
    stepper.loss_and_gradients(*gradient_batch())
    differences = [
        abs(p.grad.norm().item() - float(numbers[f"{scheme}/grad_norm/{name}"]))
        for name, p in model.named_parameters()
    ]
    return float(np.max(differences)), stepper.skipped  # NaN if one is; `max` may lose it


def loss_difference(
    model: nn.Module, precision: Precision, optimizer: str, expected: np.ndarray
) -> tuple[float, int]:
    """Train for eight steps; return the greatest difference of a loss, and the steps skipped."""
    stepper = Stepper(model.train(), precision, optimizer)
    losses = [stepper.step(*step_batch(i)) for i in range(STEPS)]
    return float(np.abs(np.array(losses) - expected).max()), stepper.skipped


def compare(
    scheme: str, precision: Precision, device: torch.device, numbers: Mapping[str, np.ndarray]
) -> tuple[list[float], int, bool]:
    """Return the differences in order of the table, steps skipped, and whether all is well."""
    set_products(precision.products)

    def fresh() -> nn.Module:
        return fill_(tiny_model(scheme)).to(device)

    model = fresh()
    logits = [
        logit_difference(model, device, precision, case, numbers[f"{scheme}/{case}/logits"])
        for case in CASES
    ]
    rest = [gradient_difference(model, precision, scheme, numbers)]
    rest += [
        loss_difference(fresh(), precision, name, numbers[f"{scheme}/train/{name}"])
        for name in SOLVERS
    ]
    differences, skipped = zip(*rest, strict=True)
    # Not `any(x > tolerance …)`: a NaN isn't greater either.
    well = all(x <= precision.logits for x in logits)
    well &= all(x <= precision.rest for x in differences)
    return [*logits, *differences], sum(skipped), well


def usable(device: torch.device) -> tuple[list[Precision], str]:
    """Return the precisions that a device has, and a line on those it lacks, or nothing."""
    if device.type == "cpu":
        lacking = [p.name for p in PRECISIONS if p.name not in ON_CPU]
    else:
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        has_tf32 = torch.cuda.get_device_capability(device)[0] >= 8
        lacking = [n for n, has in (("tf32", has_tf32), ("bf16", has_bf16)) if not has]
    why = "need a GPU" if device.type == "cpu" else "this GPU has none"
    line = f"{', '.join(lacking)}: skipped ({why})" if lacking else ""
    return [p for p in PRECISIONS if p.name not in lacking], line


def report(device: torch.device) -> tuple[str, bool]:
    """Return the table with what has to be known to read it, and whether all is well."""
    rows: list[tuple[object, ...]] = [HEADER]
    lines, largest, all_well = [], {}, True
    precisions, lacking = usable(device)
    with np.load(NUMBERS) as file:
        numbers = dict(file)
    for scheme in SCHEMES:
        for precision in precisions:
            differences, skipped, well = compare(scheme, precision, device, numbers)
            cells = [f"{x:.1e}" for x in differences]
            allowed = (f"{precision.logits:.0e}", f"{precision.rest:.0e}")
            rows.append((scheme, precision.name, *cells, *allowed, "ok" if well else "NOT OK"))
            all_well &= well
            largest[precision.name] = max(largest.get(precision.name, 0.0), *differences[:5])
            if skipped:
                lines.append(
                    f"{scheme}, {precision.name}: GradScaler began too high, as it does: {skipped} "
                    "steps overflowed and were done again"
                )
    if "tf32" in largest and largest["tf32"] < 10 * largest["fp32"]:
        lines.append("tf32 differs no more than fp32: it was not in use, or fp32 was not exact")
    return "\n".join([format_table(rows), *lines, *([lacking] if lacking else [])]), all_well


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    table, all_well = report(torch.device(parser.parse_args().device))
    print(
        "Greatest differences from the numbers of the published code (CPU, float32): logits of\n"
        f"five clips, gradient norms, losses of {STEPS} steps with SGD and with AdamW."
    )
    print(table)
    if not all_well:
        sys.exit("numbers differ by more than is allowed: see the rows with NOT OK")


if __name__ == "__main__":
    main()
