"""Pieces of work in a folder that several processes do together: each is one process's at a time.

A claim is a locked byte of a file, which the system gives back when its process ends, however it
is killed; on file systems of a network too, if they have locks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = get_logger(__name__)

HELD = (errno.EACCES, errno.EAGAIN)


class Claims:
    """Claims by number, from 0, in a file that all who take part open.

    Threads of one process aren't kept apart.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            UserError: it can't be made.
        """
        self.path = path
        self._without = fcntl is None
        try:
            self._file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror}") from error

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def take(self, number: int) -> bool:
        """Claim a piece of work; False if another process has it."""
        return self._lock(number, wait=False)

    def release(self, number: int) -> None:
        """Give a piece of work back."""
        if not self._without:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    @contextmanager
    def holding(self, number: int) -> Iterator[None]:
        """Wait for a piece of work, and give it back at the end."""
        self._lock(number, wait=True)
        try:
            yield
        finally:
            self.release(number)

    def _lock(self, number: int, wait: bool) -> bool:
        if self._without:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except OSError as error:
            if error.errno in HELD:
                return False
            self._without = True  # said once
            logger.warning(
                "%s: no locks on this file system (%s): let each run have a share of its own",
                *(self.path, error.strerror),
            )
        return True
