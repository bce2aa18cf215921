"""Names that weights get when they are renamed: each only once."""

from __future__ import annotations

from torch import Tensor


def put(native: dict[str, Tensor], name: str, value: Tensor, key: str) -> None:
    """Add a weight under its new name.

    Args:
        native: what was renamed so far.
        name: the new name.
        value: the weight.
        key: what the file calls it.

    Raises:
        ValueError: another entry of the file has that name already.
    """
    if name in native:
        raise ValueError(f"holds {name} twice, once as {key}")
    native[name] = value
