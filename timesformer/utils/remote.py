"""Files behind a URL (s3://, gs://, http://, memory:// …) through fsspec: whole, or ranges of them.

Each process opens its own file system: connections don't survive a fork, and fsspec notices one.
Credentials and timeouts are fsspec's own settings (its config files and environment variables).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from timesformer.utils.errors import UserError

BLOCK = 1 << 22  # bytes of a request: a prepared video comes in one or two
BLOCKS = 16  # that are kept of an open file
AT_ONCE = 16  # questions for the sizes of files
# "C:/" is a drive; "simplecache::s3:/" a chain of fsspec's.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(/|:.*:/)")
_OF_THIS_MACHINE = ("file", "local")  # what follows is a path from the root on, not a server
_DENIED = (401, 403)
_PASSING = (408, 425, 429)  # statuses of HTTP below 500 that say nothing about the file


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a URL, also one that `pathlib` left a single slash."""
    return _URL.match(os.fspath(path)) is not None


def as_url(path: str | os.PathLike[str]) -> str:
    """Return a URL with both slashes, whatever `pathlib` made of it."""
    url = os.fspath(path)
    if "://" in url:
        return url
    scheme, _, rest = url.partition(":")
    return f"{scheme}://{'/' * (scheme in _OF_THIS_MACHINE)}{rest.lstrip('/')}"


def join(folder: str, name: str) -> str:
    """Return the path or URL of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)  # noqa: PTH118


def read_remote(url: str) -> bytes:
    """Read a whole file.

    Raises:
        OSError: it can't be read; `strerror` says why.
        UserError: what the URL begins with needs a package that isn't installed.
    """
    system, path = _system(url)
    with _as_errors_of_system(url):
        return bytes(system.cat_file(path))


def remote_sizes(urls: Iterable[str]) -> Iterator[tuple[str, int | OSError]]:
    """Yield the bytes of each file, or why they can't be told."""

    def size(url: str) -> int | OSError:
        system, path = _system(url)
        try:
            with _as_errors_of_system(url):
                found = system.info(path)["size"]
                return -1 if found is None else int(found)
        except OSError as error:
            return error

    urls = list(urls)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(urls, pool.map(size, urls), strict=True)


def remote_range(url: str, start: int, size: int) -> Callable[[int, int], bytes]:
    """Return what reads a part of a file: bytes [i, j) of the `size` that follow `start`.

    Blocks are asked for as they are needed; the last ones stay.

    Raises:
        OSError: when called: it can't be read; `strerror` says why.
    """
    from fsspec.caching import BlockCache

    system, path = _system(url)

    def fetch(i: int, j: int) -> bytes:
        j = min(j, size)  # the last block would reach into what follows
        with _as_errors_of_system(url):
            found = bytes(system.cat_file(path, start=start + i, end=start + j))
        if len(found) > j - i:
            raise OSError(errno.EINVAL, "its server gives whole files, not ranges of them", url)
        return found

    return BlockCache(BLOCK, fetch, size, BLOCKS)._fetch


def _system(url: str) -> tuple[Any, str]:
    """Return this process's file system for a URL, and the path in it."""
    from fsspec.core import url_to_fs

    url = as_url(url)
    if "::" in url:
        raise UserError(f"{url}: chains of URLs (::) aren't taken: give what the last one names")
    try:
        return url_to_fs(url)
    except Exception as error:  # whatever the package of this storage raises
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{url}: can't be opened ({why:.200}): pip install 'timesformer[remote]' brings http, "
            "s3fs s3, gcsfs gs"
        ) from error


@contextmanager
def _as_errors_of_system(url: str) -> Iterator[None]:
    """Turn what libraries of storage raise into OSErrors with the system's numbers.

    What may pass has one of `retry.TRANSIENT`.

    Raises:
        OSError: whatever is raised; `strerror` says what.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such object", url) from error
    except PermissionError as error:
        raise PermissionError(errno.EACCES, "access is denied", url) from error
    except Exception as error:
        status = getattr(error, "status", None)
        said = " ".join(str(error).split())[:200] or type(error).__name__
        if status in _DENIED:
            raise PermissionError(errno.EACCES, f"access is denied ({status})", url) from error
        if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING:
            raise OSError(errno.EINVAL, f"can't be read ({said})", url) from error
        # A server that is overloaded, a connection that broke, an answer that didn't come.
        number = getattr(error, "errno", None) or errno.ETIMEDOUT
        raise OSError(number, f"storage fails ({said})", url) from error
