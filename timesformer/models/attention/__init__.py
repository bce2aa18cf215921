"""Space-time attention schemes, one per file; importing this package registers them."""

from timesformer.models.attention import divided, joint, space_only
from timesformer.models.attention.base import (
    ATTENTION_REGISTRY,
    SpaceTimeBlock,
    TokenGrid,
    register_scheme,
)

__all__ = [
    "ATTENTION_REGISTRY",
    "SpaceTimeBlock",
    "TokenGrid",
    "divided",
    "joint",
    "register_scheme",
    "space_only",
]
