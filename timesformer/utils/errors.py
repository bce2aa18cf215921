"""Errors that the person at the keyboard can mend.

Every command-line tool shows a `UserError` as one line and exits with status 2; any other
exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Base class: the message names the file, line or key at fault and says what to do."""


class ConfigError(UserError, ValueError):
    """A configuration that can't work. The message names the key to change."""


class AnnotationError(UserError, ValueError):
    """A missing or malformed list of videos. The message names the file and line."""


class WeightsError(UserError, RuntimeError):
    """Weights that are missing, damaged, or don't belong to this model."""


class TrainingError(UserError, RuntimeError):
    """Training can't go on, e.g. because the loss is not finite."""


class VideoError(UserError, RuntimeError):
    """A video that can't be read.

    Attributes:
        path: the file.
        reason: what is wrong with it, in words.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        # The default would call VideoError(message) when a worker process sends it to its parent.
        return (type(self), (self.path, self.reason))


def run_tool(main: Callable[[], None]) -> None:
    """Run the `main` of a command-line tool; a `UserError` becomes one line and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
