"""Modules that register themselves: one new file in their folder is enough."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules


def module_names(path: Iterable[str]) -> list[str]:
    """Return the names of a package's own modules, without those that begin with an underscore.

    Args:
        path: the package's `__path__`.
    """
    return sorted(m.name for m in iter_modules(path) if not (m.ispkg or m.name.startswith("_")))


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they define is registered.

    Args:
        package: its `__name__`.
        path: its `__path__`.
    """
    for name in module_names(path):
        import_module(f"{package}.{name}")
