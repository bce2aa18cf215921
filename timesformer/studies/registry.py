"""The registries of figures and tables, apart from the catalogue so that its files can import them.

The first line of a function's docstring says what its figure or table shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fvcore.common.registry import Registry

from timesformer.utils.errors import UserError
from timesformer.utils.text import not_known

STUDY_REGISTRY = Registry("STUDY")
STUDY_REGISTRY.__doc__ = (
    """Functions `() -> Study`: a figure, and the runs that it is drawn from."""
)

TABLE_REGISTRY = Registry("TABLE")
TABLE_REGISTRY.__doc__ = """Functions `() -> str`: the text of a table that needs no training.

One that takes `data_set` can be asked for a single data set.
"""

PICTURE_REGISTRY = Registry("PICTURE")
PICTURE_REGISTRY.__doc__ = """Functions `() -> Figure | None`: the picture of a table.

They have the names and the arguments of their tables; few tables have one.
"""

Maker = TypeVar("Maker", bound=Callable[[], Any])


def register_study(name: str) -> Callable[[Maker], Maker]:
    """Register a function under the name of `reproduce --figure NAME`; it returns a `Study`."""
    return _register(STUDY_REGISTRY, name)


def register_table(name: str) -> Callable[[Maker], Maker]:
    """Register a function under the name of `reproduce --table NAME`; it returns the text."""
    return _register(TABLE_REGISTRY, name)


def register_picture(name: str) -> Callable[[Maker], Maker]:
    """Register a function under the name of the table whose picture it draws."""
    return _register(PICTURE_REGISTRY, name)


def names(registry: Registry) -> list[str]:
    """Return the names in a registry, sorted."""
    return sorted(name for name, _ in registry)


def find(registry: Registry, option: str, name: str) -> Callable[..., Any]:
    """Return what a registry has under a name.

    Raises:
        UserError: nothing, naming the nearest; `option` is what the name was given to.
    """
    if name not in registry:
        raise UserError(not_known(option, name, names(registry)))
    return registry.get(name)


def summary(function: Callable[[], Any]) -> str:
    """Return the first line of a figure's or table's docstring."""
    return (function.__doc__ or "").partition("\n")[0]


def _register(registry: Registry, name: str) -> Callable[[Maker], Maker]:
    def register(function: Maker) -> Maker:
        registry._do_register(name, function)
        return function

    return register
