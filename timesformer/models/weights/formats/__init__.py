"""Other people's layouts of the same weights, told apart by their names.

Each module has `matches(state)` and `to_native(state)`, and `from_native` where there is a way
back. Native names are those of `VisionTransformer`, which are timm's.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from timesformer.models.weights.formats import google_npz, hugging_face, mmaction2

__all__ = ["IGNORED", "google_npz", "hugging_face", "mmaction2", "to_native"]

IGNORED = ("pre_logits.", *google_npz.IGNORED, *mmaction2.IGNORED)
"""Beginnings of names that no video model needs; `to_native` leaves them as they are."""


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under native names; those in no other layout come back as they are.

    Raises:
        ValueError: if they are in a layout that is known, but of a model that isn't.
    """
    for layout in (google_npz, hugging_face, mmaction2):
        if layout.matches(state):
            return layout.to_native(state)
    return dict(state)
