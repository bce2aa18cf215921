"""Whether the index of shards and their tars say the same."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator

import numpy as np

from timesformer.datasets.video.shards import Shards
from timesformer.utils.errors import ShardsError
from timesformer.utils.files import add_to_digest, open_regular


def differences(shards: Shards) -> Iterator[tuple[str, str]]:
    """Yield (file, what is wrong) where the index isn't that of shards.json, or not of the tars.

    Of tars on a disk every header is read, no content. Those behind a URL aren't gone through: a
    request for each header would take as long as reading them.
    """
    path, contents = shards.index.path, shards.contents
    with open_regular(path) as file:
        digest = hashlib.sha256()
        add_to_digest(digest, file)
    if digest.hexdigest() != contents.index_digest:
        yield str(path), "its SHA-256 isn't that of shards.json"
    try:
        places = (m.entry[:3] for m in shards.members())
        table = np.fromiter(places, np.dtype((np.int64, 3)))  # shard, offset, size
    except ShardsError as error:
        yield str(path), str(error)
        return
    if len(table) != contents.members:
        yield str(path), f"{len(table):,} members, where shards.json says {contents.members:,}"
    for number in range(0 if shards.remote else len(contents.shards)):
        wanted = table[table[:, 0] == number, 1:]
        tar = shards.path_of(number)
        try:
            found = np.fromiter(_members(tar), np.dtype((np.int64, 2)))
        except (OSError, tarfile.TarError) as error:
            yield tar, f"can't be read as a tar ({error})"
            continue
        if not np.array_equal(found, wanted[np.argsort(wanted[:, 0])]):
            yield tar, f"has {len(found):,} members, not the {len(wanted):,} of the index"


def _members(path: str) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each member of a tar."""
    with tarfile.open(path, "r:") as tar:
        while member := tar.next():
            yield member.offset_data, member.size
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
