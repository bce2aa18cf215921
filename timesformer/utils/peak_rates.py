"""What GPUs can do at most, as their makers say: dense matrix products, in TFLOP/s.

A multiplication and an addition are two FLOPs.
"""

from __future__ import annotations

import torch

BF16, TF32, FP32 = "bf16", "tf32", "fp32"  # fp16 is as fast as bf16 on all of these
FLOPS_PER_MAC = {"forward": 2, "train": 6}
"""By convention, of a model's forward multiply-adds: a backward pass is two forward ones, and what
is computed again doesn't count."""
# Of the first name that is in the device's.
PEAKS: dict[str, dict[str, float]] = {
    "H100 PCIe": {BF16: 756.0, TF32: 378.0, FP32: 51.0},
    "H100": {BF16: 989.0, TF32: 494.5, FP32: 67.0},
    "H200": {BF16: 989.0, TF32: 494.5, FP32: 67.0},
    "A100": {BF16: 312.0, TF32: 156.0, FP32: 19.5},
    "L40S": {BF16: 362.0, TF32: 183.0, FP32: 91.6},
}


def stated_peaks(device: torch.device) -> dict[str, float]:
    """Return what the maker of a device says; {} where it isn't known, as of every CPU."""
    if device.type != "cuda":
        return {}
    name = torch.cuda.get_device_name(device)
    return next((peaks for part, peaks in PEAKS.items() if part in name), {})


def peak_rate(device: torch.device, amp: str) -> float | None:
    """Return the peak of a device in TFLOP/s; None where it isn't known, as of every CPU.

    Args:
        device: what computes.
        amp: as TRAIN.AMP; with none, products of float32 are what torch is set to.
    """
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    kind = BF16 if amp != "none" else TF32 if tf32 else FP32
    return stated_peaks(device).get(kind)
