"""What a model says of one video.

Letters: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from timesformer.models.base import Testing
from timesformer.utils.text import class_name

TOPK = 5  # classes that are named


class Guess(NamedTuple):
    """A class that a video may be of.

    Attributes:
        label: its number.
        name: what it is called; "class 7" where weights don't know names.
        prob: from 0 to 1. Those of all classes add up to 1, unless videos may have several.
    """

    label: int
    name: str
    prob: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video, or why it can't say anything.

    Attributes:
        path: the file or folder; "" of frames that came from none.
        scores: (K,) as a test makes them of the video's views; None if it can't be read.
        testing: the views, and how their scores were joined.
        class_names: in label order, or ().
        damage: what is wrong with the file although it could be read, e.g. that it is shorter than
            a clip, or "".
        error: why it couldn't be read, or None.
        topk: classes that `top` names.
    """

    path: str
    scores: Tensor | None
    testing: Testing
    class_names: Sequence[str] = ()
    damage: str = ""
    error: str | None = None
    topk: int = TOPK

    @cached_property
    def probabilities(self) -> Tensor | None:
        """Of all classes (K,), ranked as the scores; None if the video can't be read."""
        if self.scores is None:
            return None
        return self.testing.probabilities(self.scores[None])[0]

    @cached_property
    def top(self) -> list[Guess]:
        """The likeliest classes, the first one first; none if the video can't be read."""
        if self.scores is None:
            return []
        chance = self.probabilities
        assert chance is not None
        labels = self.scores.topk(min(self.topk, len(self.scores))).indices.tolist()
        return [Guess(label, self.name_of(label), float(chance[label])) for label in labels]

    def name_of(self, label: int) -> str:
        """Return what a class is called."""
        return class_name(self.class_names, label)

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {
            "path": self.path,
            "topk": [guess._asdict() for guess in self.top],
            "views": self.testing.views,
            "damage": self.damage,
            "error": self.error,
        }
