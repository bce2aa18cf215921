"""Space-time attention schemes, one per file; importing this package registers them."""

from timesformer.models.attention import (
    axial,
    divided,
    factorised_dot_product,
    factorised_self,
    joint,
    local_global,
    parallel,
    space_only,
    space_then_time,
)
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
    "axial",
    "divided",
    "factorised_dot_product",
    "factorised_self",
    "joint",
    "local_global",
    "parallel",
    "register_scheme",
    "space_only",
    "space_then_time",
]
