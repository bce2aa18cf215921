"""Precisions, and what a device can do in them: TFLOP/s of matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from timesformer.utils.peak_rates import stated_peaks


class Precision(NamedTuple):
    """How products are computed.

    Attributes:
        name: what it is called here.
        amp: as TRAIN.AMP.
        products: of float32 matrices, ieee or tf32.
        dtype: of the factors; None for integers.
    """

    name: str
    amp: str
    products: str
    dtype: torch.dtype | None


PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", "none", "ieee", torch.float32),
        Precision("tf32", "none", "tf32", torch.float32),
        Precision("bf16", "bf16", "ieee", torch.bfloat16),
        Precision("fp16", "fp16", "ieee", torch.float16),
        Precision("int8", "none", "ieee", None),
    )
}


def lacking(precision: str, device: torch.device, what: str) -> str:
    """Return why a precision can't be had, or ""."""
    if precision == "int8":
        if what == "train":
            return "int8 is for inference"
        return "" if device.type == "cpu" else "no int8 layers for GPUs here"
    if precision == "tf32":
        if device.type == "cpu":
            return "a number format of GPUs"
        return "" if torch.cuda.get_device_capability(device)[0] >= 8 else "this GPU has none"
    if precision == "fp16" and device.type == "cpu":
        return "TRAIN.AMP and TEST.AMP fp16 need a GPU"
    if precision == "bf16" and device.type == "cuda":
        return "" if torch.cuda.is_bf16_supported(False) else "this GPU has none"
    return ""


@contextmanager
def products(kind: str) -> Iterator[None]:
    """Multiply float32 matrices exactly (ieee) or with 10 bits of the factors (tf32)."""
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [s.fp32_precision for s in settings]
    for setting in settings:
        setting.fp32_precision = kind
    try:
        yield
    finally:
        for setting, was in zip(settings, before, strict=True):
            setting.fp32_precision = was


def stated_peak(precision: str, device: torch.device) -> float | None:
    """Return the TFLOP/s that a GPU's maker says, or None for a device that isn't known."""
    return stated_peaks(device).get({"fp16": "bf16"}.get(precision, precision))
