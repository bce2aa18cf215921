"""Labels as rows of lists have them: numbers, class names, or several of either."""

from __future__ import annotations

import re
from collections.abc import Sequence

Label = int | tuple[int, ...]
MOST = 2**31 - 1  # labels lie in memory as 32-bit integers
REMEMBERED = 1 << 16  # texts of labels; a list has few, but for those with several labels


class BadRowError(ValueError):
    """What is wrong with a row; `read_list` adds file and line."""


class LabelReader:
    """Reads labels: numbers, class names, or several of them with commas."""

    def __init__(self, num_classes: int, class_names: Sequence[str], multi_label: bool) -> None:
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.index = {name.replace("_", " "): i for i, name in enumerate(class_names)}
        self.index |= {name: i for i, name in enumerate(class_names)}
        self._known: dict[str, Label | None] = {}

    def __call__(self, text: str) -> Label | None:
        """Return the label(s) that `text` is, None if it isn't; BadRowError if out of range."""
        if text in self._known:
            return self._known[text]
        label = self._several(text) if self.multi_label else self._one(text)
        if len(self._known) < REMEMBERED and len(text) < 100:
            self._known[text] = label
        return label

    def named(self, name: str) -> int | None:
        """Return the label of a class name, None if there is no such class."""
        label = self.index.get(name)
        return self.index.get(name.replace("_", " ")) if label is None else label

    def unknown(self, text: str) -> BadRowError:
        """Return the error for a text that is no label."""
        wrong = "neither an integer nor a class name" if self.index else "not an integer"
        advice = "" if self.index else "; if it is a class name, set DATA.CLASS_NAMES"
        return BadRowError(f"the label {text!r:.200} is {wrong}{advice}")

    def _several(self, text: str) -> tuple[int, ...] | None:
        whole = self.named(text.strip()) is not None  # a name with a comma
        found = [self._one(part) for part in ([text] if whole else text.split(","))]
        known = {label for label in found if label is not None}
        return None if None in found else tuple(sorted(known))

    def _one(self, text: str) -> int | None:
        text = text.strip()
        if not is_number(text):
            return self.named(text)
        # So many digits are no label; int() refuses some thousands in words of its own. It takes
        # digits of any script, and "-0", none of which can be meant.
        if not re.fullmatch("[0-9]{1,18}", text):
            raise BadRowError(f"label {text:.60} is not {self._range()}")
        label = int(text)
        if label < min(self.num_classes, MOST):
            return label
        why = self._range()
        if label == self.num_classes:
            why += "; if labels count from 1, as in UCF101's trainlist, subtract 1"
        raise BadRowError(f"label {text:.60} is not {why}")

    def _range(self) -> str:
        return f"in 0..{self.num_classes - 1}; MODEL.NUM_CLASSES is {self.num_classes}"


def is_number(text: str) -> bool:
    """Tell whether a text is a whole number in digits of any kind: 3, -1, +2, ², ٣."""
    return text.lstrip("+-").isnumeric()
