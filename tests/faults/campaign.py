"""How large a fault campaign is, and what it counted."""

from __future__ import annotations

import os
from typing import Any

# 1 is the full campaign, 0.1 a tenth of it.
SCALE = float(os.environ.get("FAULTS_SCALE", "1"))
REPORT: list[str] = []


def scaled(full: int) -> int:
    """How many of `full` cases this campaign runs."""
    return max(1, round(SCALE * full))


def tell(name: str, **counts: Any) -> None:
    """Note what a campaign counted; all such lines are printed at the end of the tests."""
    line = f"{name}: " + ", ".join(
        f"{value} {key.replace('_', ' ')}" for key, value in counts.items()
    )
    REPORT.append(line)
    print(line)
