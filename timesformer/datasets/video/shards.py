"""Shards: many small files in a few tars, each of them found by an index and read by itself.

A folder of shards, or its URL, has

    shards.json           what is here: format, index, the name and bytes of each shard
                          (`shard_contents.py`)
    index-….tsv           where each member is (`shard_index.py`)
    shard-000000.tar …    plain, uncompressed tars

and stands for a folder of files: what has a path below it is looked up among the members, and
nowhere else. Where a video is read, its path is a `Member`, or a str for a file by itself.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from timesformer.datasets.video.byte_range import ByteRange, open_local, open_remote
from timesformer.datasets.video.shard_contents import MANIFEST, Contents
from timesformer.datasets.video.shard_index import Entry, ShardIndex
from timesformer.utils.claims import Claims
from timesformer.utils.errors import ShardsError, VideoError
from timesformer.utils.files import add_to_digest, is_file, is_folder, make_folder, written_whole
from timesformer.utils.remote import is_url, join, read_remote, remote_sizes
from timesformer.utils.retry import persistently

UNFINISHED = "unfinished"  # folder of what `prepare-data --shards` hasn't finished


@dataclass(frozen=True)
class Member:
    """A file in a shard.

    Attributes:
        shards: where it is.
        name: its path in them.
        entry: its place.
    """

    shards: Shards
    name: str
    entry: Entry

    def __str__(self) -> str:
        return f"{self.shard}!{self.name}"

    @property
    def shard(self) -> str:
        """Path or URL of its tar."""
        return self.shards.path_of(self.entry.shard)

    @property
    def key(self) -> tuple[str, int, int]:
        """Another one for each content, as far as can be told without reading it."""
        return str(self), self.entry.size, self.entry.offset

    def open(self) -> ByteRange:
        """Open it; each call has a descriptor of its own.

        Raises:
            VideoError: its shard isn't there, ends before it does, or has something else there.
        """
        opener = open_remote if self.shards.remote else open_local
        return opener(str(self), self.shard, self.name, self.entry.offset, self.entry.size)

    def read(self) -> bytes:
        """Read it whole.

        Raises:
            VideoError: as `open`.
        """
        with self.open() as file:
            return file.read()

    def check(self) -> None:
        """Hold its bytes against the index's SHA-256.

        Raises:
            VideoError: they differ, or as `open`.
        """
        digest = hashlib.sha256()
        with self.open() as file:
            add_to_digest(digest, file)
        if digest.hexdigest() != self.entry.digest:
            raise VideoError(str(self), "its SHA-256 isn't that of the index: copy the shard again")


@dataclass(frozen=True)
class MemberFolder:
    """A folder of which shards have the files."""

    shards: Shards
    name: str

    def __str__(self) -> str:
        return join(self.shards.root, self.name)

    def names(self) -> list[str]:
        """Names of the files in it, without those in folders in it."""
        skip = len(self.name) + 1
        found = (name[skip:] for name, _ in self.shards.index.below(self.name))
        return [name for name in found if "/" not in name]

    def members(self) -> Iterator[Member]:
        """Yield the files of `names`."""
        return (self / name for name in self.names())

    def __truediv__(self, name: str) -> Member:
        found = self.shards.find(f"{self}/{name}")
        assert isinstance(found, Member), f"{self}: {name} isn't one of its names"
        return found


VideoPath = str | Member


class Shards:
    """Shards that are there, each of them of the size that their description says.

    Attributes:
        root: the folder or URL, as it was given.
        remote: it is a URL.
        contents: what shards.json says.
    """

    def __init__(self, root: str, contents: Contents) -> None:
        self.root = root
        self.remote = is_url(root)
        self.contents = contents
        self._root = _normal(root)
        self._index: ShardIndex | None = None

    def __getstate__(self) -> Mapping[str, Any]:
        return vars(self) | {"_index": None}  # each process that isn't forked maps it anew

    @property
    def index(self) -> ShardIndex:
        """The index; that of a URL is fetched once for all processes of a user."""
        if self._index is None:
            path = Path(self.root) / self.contents.index
            if self.remote:
                path = self._fetched()
            self._index = ShardIndex(path)
        return self._index

    def path_of(self, number: int) -> str:
        """Path or URL of a tar."""
        return join(self.root, self.contents.shards[number].name)

    def holds(self, path: str) -> bool:
        """Tell whether a path is below these shards' folder, so that it is looked up here."""
        return _normal(path).startswith(f"{self._root}/")

    def find(self, path: str) -> Member | MemberFolder:
        """Look up a path.

        Raises:
            VideoError: there is no such file or folder among the members, or the index is damaged.
        """
        name = _normal(path).removeprefix(f"{self._root}/")
        if "\0" in name:
            raise VideoError(path.replace("\0", "\\0"), "the path has a NUL character")
        try:
            if "\t" not in name and (entry := self.index.find(name)):
                if not 0 <= entry.shard < len(self.contents.shards):
                    raise ShardsError(f"{self.index.path}: {MANIFEST} has no shard {entry.shard}")
                return Member(self, name, entry)
            if self.index.is_folder(name):
                return MemberFolder(self, name)
        except ShardsError as error:
            raise VideoError(path, str(error)) from error
        raise VideoError(path, f"not in the shards' index, {self.contents.index}")

    def members(self) -> Iterator[Member]:
        """Yield all members in the order of their names."""
        return (Member(self, name, entry) for name, entry in self.index.below(""))

    def problems(self) -> Iterator[str]:
        """Say which files aren't there, or not of the size that they should have."""
        wanted = {join(self.root, s.name): s.bytes for s in self.contents.shards}
        if not self.remote:
            wanted[join(self.root, self.contents.index)] = self.contents.index_bytes
        for path, size in _sizes(wanted, self.remote):
            if isinstance(size, OSError):
                yield f"{path}: {(size.strerror or str(size)).lower()}"
            elif size not in (-1, wanted[path]):  # -1: a server that doesn't tell
                yield f"{path}: {size:,} bytes, where {MANIFEST} says {wanted[path]:,}"

    def _fetched(self) -> Path:
        """Return the index of a URL on this machine, named after its content."""
        digest, url = self.contents.index_digest, join(self.root, self.contents.index)
        folder = make_folder(Path(torch.hub.get_dir()) / "shards")
        path = folder / f"{digest}.tsv"
        with Claims(folder / "lock") as claims, claims.holding(0):  # ranks start at once
            if is_file(path) and path.stat().st_size == self.contents.index_bytes:
                return path
            data = _read_remote(url)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ShardsError(f"{url}: not the index of {MANIFEST}: their SHA-256 differ")
            with written_whole(path) as partial:
                partial.write_bytes(data)
        return path


def open_shards(root: str) -> Shards | None:
    """Open the shards of a folder or URL; return None for a folder of files.

    Args:
        root: folder of the videos, "" for none.

    Raises:
        ShardsError: there are none at a URL, or one of them is missing or of another size.
    """
    where, text = join(root, MANIFEST), b""
    if is_url(root):
        text = _read_remote(where, "; at a URL, videos must be in shards (prepare-data --shards)")
    elif root and is_file(where):
        text = Path(where).read_bytes()
    elif root and is_folder(join(root, UNFINISHED)):
        raise ShardsError(f"{root}: its shards aren't finished: run `prepare-data --shards` again")
    if not text:
        return None
    shards = Shards(root, Contents.of_json(text, where))
    if problems := list(shards.problems()):
        more = f" (and {len(problems) - 1:,} more)" if problems[1:] else ""
        raise ShardsError(f"{problems[0]}{more}: copy what `prepare-data --shards` wrote again")
    return shards


def _read_remote(url: str, advice: str = "") -> bytes:
    try:
        return persistently(lambda: read_remote(url), url)
    except OSError as error:
        raise ShardsError(f"{url}: {error.strerror or error}{advice}") from error


def _sizes(paths: Iterable[str], remote: bool) -> Iterator[tuple[str, int | OSError]]:
    if remote:
        yield from remote_sizes(paths)
        return
    for path in paths:
        try:
            yield path, os.stat(path).st_size  # noqa: PTH116
        except OSError as error:
            yield path, error


def _normal(path: str) -> str:
    """Return a path as names in shards are: with "/" and without "." and ".."."""
    return posixpath.normpath(path.replace(os.sep, "/"))
