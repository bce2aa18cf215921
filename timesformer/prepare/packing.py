"""Packing files into shards, each written whole and once, and the index of all of them.

While shards are made, OUTPUT/unfinished holds the rows of each that is complete. A run that was
killed goes on after the last complete one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from timesformer.datasets.video.shard_contents import MANIFEST, Contents, Shard
from timesformer.datasets.video.shard_index import Entry, parse_row
from timesformer.datasets.video.shards import UNFINISHED, open_shards
from timesformer.prepare.tar_writer import TarWriter
from timesformer.utils.errors import UserError
from timesformer.utils.files import write_text, written_whole

UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS |= {f"{unit}i": 1024**i for i, unit in enumerate("kmgt", 1)}
LEAST = 1 << 16  # bytes of a shard


class Limit(NamedTuple):
    """When a shard is full.

    Attributes:
        videos: so many are in it; 0 for any number.
        bytes: one more would make it larger; 0 for any size.
    """

    videos: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, text: str, videos: int) -> Limit:
        """Read --shards: how many there should be of so many videos, or how large each.

        Raises:
            UserError: it is neither.
        """
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*(?:([kmgt]i?)b?|b)?", text.lower())
        if found and text.isdigit() and int(text):
            return cls(videos=max(1, -(-videos // int(text))))
        if not found or text.isdigit() or (size := _bytes(found)) < LEAST:
            raise UserError(
                f"--shards {text}: a number of shards, or bytes of each with a unit (500MB, 1GiB), "
                f"{LEAST:,} at least"
            )
        return cls(bytes=size)

    def is_reached(self, tar: TarWriter, more: int) -> bool:
        """Tell whether a video of so many bytes belongs to the next shard."""
        if self.videos:
            return tar.videos >= self.videos
        return tar.videos > 0 and tar.bytes + more > self.bytes


def _bytes(found: re.Match[str]) -> int:
    return int(float(found[1]) * UNITS.get(found[2] or "", 1))


class Packer:
    """Puts files into shards, after those that are complete."""

    def __init__(self, output: Path, limit: Limit) -> None:
        """Look what is complete.

        Raises:
            ShardsError: shards were finished here, of which one is missing.
        """
        self.output = output
        self.limit = limit
        self.finished = open_shards(str(output)) if (output / MANIFEST).exists() else None
        self._unfinished = output / UNFINISHED
        self._unfinished.mkdir(exist_ok=True)
        self._first = len(self.finished.contents.shards) if self.finished else 0
        self._next = self._first
        self._entries: dict[str, Entry] = {}
        while self._rows(self._next).exists():
            for row in self._rows(self._next).read_bytes().splitlines():
                name, entry = parse_row(row)
                self._entries[name] = entry
            self._next += 1
        self._tar: TarWriter | None = None
        self._spent: list[Path] = []

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tar is not None:  # nothing but an error leaves one behind
            self._tar.discard()

    def time_of(self, name: str) -> int | None:
        """Return when a member's file was written, in seconds; None if there is no such member."""
        entry = self._entries.get(name) or (self.finished and self.finished.index.find(name))
        if not entry:
            return None
        with self._path(entry.shard).open("rb") as file:
            file.seek(entry.offset - 512)
            return int(file.read(512)[136:148].strip(b"\0 ") or b"0", 8)

    def add(self, files: list[tuple[Path, str]], spent: bool = False) -> None:
        """Add the files of a video, or none of them.

        Args:
            files: where each is, and its name in the shard.
            spent: they are deleted once their shard is complete.

        Raises:
            VideoError: one of them can't be read.
            UserError: the shard can't be written.
        """
        more = sum(_size(path) for path, _ in files)
        if self._tar is not None and self.limit.is_reached(self._tar, more):
            self._close()
        if self._tar is None:
            self._tar = TarWriter(self._path(self._next), self._next)
        self._tar.add(files)
        self._spent += [path for path, _ in files] if spent else []

    def finish(self) -> Contents:
        """Complete the last shard, write index and description, and remove what isn't needed."""
        if self._tar is not None and self._tar.videos:
            self._close()
        elif self._tar is not None:  # with no video that could be read
            self._tar.discard()
            self._tar = None
        old = self.finished.contents if self.finished else None
        if old is None or self._next > self._first:
            old, contents = None, self._write()
            for path in self.output.glob("index-*.tsv"):
                if path.name != contents.index:
                    path.unlink()
        shutil.rmtree(self._unfinished)
        return old or contents

    def _write(self) -> Contents:
        rows, digest = sorted(self._all_rows()), hashlib.sha256()
        for row in rows:
            digest.update(row)
        name = f"index-{digest.hexdigest()[:16]}.tsv"
        with written_whole(self.output / name, synced=True) as partial, partial.open("wb") as file:
            file.writelines(rows)
        paths = [self._path(number) for number in range(self._next)]
        shards = tuple(Shard(path.name, path.stat().st_size) for path in paths)
        contents = Contents(name, sum(map(len, rows)), digest.hexdigest(), len(rows), shards)
        write_text(self.output / MANIFEST, contents.to_json())
        return contents

    def _all_rows(self) -> Iterator[bytes]:
        files: list[Path] = [self._rows(number) for number in range(self._first, self._next)]
        if self.finished:
            files.append(self.output / self.finished.contents.index)
        for file in files:
            yield from file.read_bytes().splitlines(keepends=True)

    def _close(self) -> None:
        """Complete the shard that is being written: it is when its rows are there."""
        tar, self._tar = self._tar, None
        assert tar is not None
        tar.close()
        with written_whole(self._rows(self._next), synced=True) as partial:
            partial.write_bytes(b"".join(tar.rows))
        self._next += 1
        for path in self._spent:
            path.unlink(missing_ok=True)
        self._spent = []

    def _path(self, number: int) -> Path:
        return self.output / f"shard-{number:06d}.tar"

    def _rows(self, number: int) -> Path:
        return self._unfinished / f"shard-{number:06d}.tsv"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told when it is read
        return 0
