"""The digest at the end of an exported file: nothing that computes one notices a flipped bit.

What is appended is such as the format skips, so any reader still reads the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from timesformer.utils.files import add_to_digest, open_regular

_DIGITS = 64


def append(path: Path, beside: Iterable[Path], around: tuple[bytes, bytes]) -> None:
    """Put a digest at the end of a file.

    Args:
        path: the file.
        beside: files with its weights.
        around: what stands before and after the digest.

    Raises:
        OSError: it can't be written.
    """
    digest = _digest([(path, path.stat().st_size), *((p, p.stat().st_size) for p in beside)])
    with path.open("ab") as file:
        file.write(around[0] + digest + around[1])


def check(path: Path, beside: Iterable[Path], around: tuple[bytes, bytes]) -> None:
    """Hold a file against its digest; one without it, which another program has written, passes.

    Raises:
        ValueError: it has another one.
        OSError: it can't be read.
    """
    length = len(around[0]) + _DIGITS + len(around[1])
    size = path.stat().st_size - length
    if size < 0:
        return
    with open_regular(path) as file:
        file.seek(size)
        end = file.read()
    if not (end.startswith(around[0]) and end.endswith(around[1])):
        return
    found = _digest([(path, size), *((p, p.stat().st_size) for p in beside)])
    if end[len(around[0]) :][:_DIGITS] != found:
        raise ValueError("its SHA-256 isn't what it was when it was written: edited since")


def _digest(files: Iterable[tuple[Path, int]]) -> bytes:
    """Return the SHA-256, in hex, of the first so many bytes of files."""
    digest = hashlib.sha256()
    for path, size in files:
        with open_regular(path) as file:
            add_to_digest(digest, file, size)
    return digest.hexdigest().encode()
