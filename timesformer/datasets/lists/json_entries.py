"""Annotations in JSON, with errors that name the file and the entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from timesformer.datasets.lists.row_paths import CONTROL
from timesformer.datasets.lists.text_file import read_text
from timesformer.utils.errors import AnnotationError

HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        AnnotationError: it is missing, isn't text or isn't JSON; names the line.
    """
    text = read_text(path)
    try:
        found = json.loads(text, object_pairs_hook=_once)
        if HALF.search(text):  # half a character: no name of a file and no text of a class
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except _TwiceError as error:
        raise AnnotationError(f"{path}: the key {error.args[0]!r:.60} is given twice") from None
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise AnnotationError(f"{path}: {half!r} is half a character (a lone surrogate)") from None
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deep, a number of 5,000 digits
        raise AnnotationError(f"{path}: not JSON that can be read: {error}") from None


def shown(value: object, most: int = 60) -> str:
    """Return a value as a message shows it: its beginning, however long or nested it is."""
    try:
        return f"{value!r:.{most}}"
    except (RecursionError, ValueError):  # the latter for numbers of thousands of digits
        return f"a {type(value).__name__}"


class _TwiceError(Exception):
    """A key of an object that is there already."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; json itself would keep the last of two equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TwiceError(key)
            seen.add(key)
    return found


class Entry:
    """One object of a JSON list; knows its place for messages."""

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where = where
        self._values = values

    def text(self, key: str) -> str:
        """Return a value that must be text and not empty."""
        value = self._value(key)
        if not isinstance(value, str) or not value:
            raise AnnotationError(f"{self.where}: {key!r} must be text, not {shown(value)}")
        return value

    def name(self, key: str) -> str:
        """Return the name of a file in the folder of videos; text that leads elsewhere is wrong."""
        value = self._value(key)
        name = str(value) if type(value) is int else self.text(key)
        plain = {PurePosixPath(name).name, PureWindowsPath(name).name} == {name}
        if not plain or name == ".." or CONTROL.search(name):
            raise AnnotationError(f"{self.where}: {key!r} must be a plain name, not {name!r:.60}")
        return name

    def integer(self, key: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._value(key)
        if type(value) is not int or not low <= value <= high:  # a bool is an int as well
            raise AnnotationError(
                f"{self.where}: {key!r} must be a whole number from {low} to {high}, "
                f"not {shown(value)}"
            )
        return value

    def _value(self, key: str) -> Any:
        if key not in self._values:
            raise AnnotationError(f"{self.where}: there is no {key!r}")
        return self._values[key]


def read_entries(path: Path) -> Iterator[Entry]:
    """Read a JSON list of objects, counted from 1.

    Raises:
        AnnotationError: it can't be read, is empty or isn't such a list.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise AnnotationError(f"{path}: must be a list of at least one video")
    for number, values in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(values, dict):
            raise AnnotationError(f"{where}: must be an object {{key: value}}, not {shown(values)}")
        yield Entry(where, values)
