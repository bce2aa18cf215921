"""Network storage, whose errors often pass."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from timesformer.utils.errors import VideoError

T = TypeVar("T")

logger = logging.getLogger(__name__)

TRANSIENT = {
    code
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "EREMOTEIO", "ECOMM"),
        *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENETDOWN", "ENETRESET", "ENETUNREACH"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ESHUTDOWN"),
    )
    if (code := getattr(errno, name, None)) is not None
}
"""Numbers of errors that say nothing about the file."""

WAITS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt


def is_transient(error: BaseException) -> bool:
    """Tell whether an error may pass by itself; FFmpeg's errors carry the system's number too."""
    return getattr(error, "errno", None) in TRANSIENT


def persistently(work: Callable[[], T], what: object) -> T:
    """Do something with a file; if storage fails for a moment, wait and try again.

    Args:
        work: may be done several times.
        what: the file, for the log.

    Raises:
        Exception: whatever `work` raises; an error of storage after the last attempt.
    """
    for i, wait in enumerate(WAITS):
        try:
            return work()
        except (OSError, VideoError) as error:
            if not is_transient(error):
                raise
            reason = getattr(error, "strerror", None) or getattr(error, "reason", error)
            if not i:
                logger.warning("%s: %s; trying again for %g s", what, reason, sum(WAITS))
        time.sleep(wait)
    return work()
