"""Space-time attention schemes, one file each. A new file here registers a new one."""

from timesformer.models.attention.base import (
    ATTENTION_REGISTRY,
    SPACE,
    TIME,
    SpaceTimeBlock,
    TokenGrid,
    register_scheme,
)
from timesformer.utils.discover import import_modules

__all__ = ["ATTENTION_REGISTRY", "SPACE", "TIME", "SpaceTimeBlock", "TokenGrid", "register_scheme"]

# After the names above, which the schemes import from here.
import_modules(__name__, __path__)
