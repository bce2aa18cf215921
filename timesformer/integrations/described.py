"""What a process needs to decode for a model that is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timesformer.models.architecture import Architecture
from timesformer.models.base import TakesClips


@dataclass
class Described(TakesClips):
    """What is known of a model's input, without the model: enough to decode for it."""

    preprocessing: dict[str, Any]
    class_names: tuple[str, ...]
    architecture: Architecture | None

    @classmethod
    def of(cls, model: TakesClips) -> Described:
        """Return what is known of a model's input."""
        return cls(model.preprocessing, model.class_names, model.architecture)
