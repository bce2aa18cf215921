"""Mixed precision, of training and of evaluation."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Mixed precision as TRAIN.AMP / TEST.AMP name it: none, bf16 or fp16."""
    return torch.autocast(device.type, AMP_TYPES.get(amp), enabled=amp in AMP_TYPES)
