"""Space-time attention schemes, one file each. A new file here registers a new one."""

from timesformer.models.attention.base import (
    ATTENTION_REGISTRY,
    SpaceTimeBlock,
    TokenGrid,
    register_scheme,
)
from timesformer.utils.discover import import_modules

__all__ = ["ATTENTION_REGISTRY", "SpaceTimeBlock", "TokenGrid", "register_scheme"]

import_modules(__name__, __path__)
