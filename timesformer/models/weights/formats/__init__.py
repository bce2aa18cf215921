"""Whose names weights have, told from the names themselves, and what to call them here.

Native names are those of `VisionTransformer`, which are timm's. Other people's layouts are a module
each, with `matches(state)` and `to_native(state)`, and `from_native` where there is a way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from timesformer.models.weights.formats import google_npz, hugging_face, mmaction2

__all__ = ["IGNORED", "bare_name", "google_npz", "hugging_face", "mmaction2", "native_state"]

IGNORED = ("pre_logits.", *google_npz.IGNORED, *mmaction2.IGNORED)
"""Beginnings of names that no video model needs; `native_state` leaves them as they are."""

_CONTAINERS = ("model_state", "state_dict", "model", "module")
_PREFIXES = ("module.", "model.")
_COMPILED = "_orig_mod."  # a part of a model may be compiled too


def native_state(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights in the content of a file, under native names where their layout is known.

    Args:
        content: what `read_weights` returns: a state dict, or one inside containers.

    Returns:
        The weights, and the names of entries that aren't any.

    Raises:
        ValueError: there are no weights, two of one name, or they are in a known layout of a model
            that isn't.
    """
    while inner := [key for key in _CONTAINERS if isinstance(content.get(key), Mapping)]:
        content = content[inner[0]]
    state: dict[str, Tensor] = {}
    others: list[str] = []
    for key, value in content.items():
        if not isinstance(value, Tensor):
            others.append(str(key))
            continue
        name = bare_name(str(key))
        if name in state:
            raise ValueError(f"holds {name} twice, once as {key}")
        state[name] = value
    if not state:
        raise ValueError(f"holds no weights, only {', '.join(others[:8]) or 'nothing'}")
    for layout in (google_npz, hugging_face, mmaction2):
        if layout.matches(state):
            return layout.to_native(state), others
    return state, others


def bare_name(name: str) -> str:
    """Return a name without what wrappers put in front of it."""
    name = name.replace(_COMPILED, "")
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name
