"""shards.json: what is in a folder of shards, their index and the name and bytes of each."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import Any, NamedTuple

from timesformer.utils.errors import ShardsError

MANIFEST = "shards.json"
FORMAT = 1


class Shard(NamedTuple):
    """A tar, by its name and size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Contents:
    """What shards.json says.

    Attributes:
        index: name of the index.
        index_bytes: its size.
        index_digest: its SHA-256.
        members: how many there are.
        shards: the tars, by number.
    """

    index: str
    index_bytes: int
    index_digest: str
    members: int
    shards: tuple[Shard, ...]

    def to_json(self) -> str:
        """Return it as text."""
        said = {
            "format": FORMAT,
            "index": {"name": self.index, "bytes": self.index_bytes, "sha256": self.index_digest},
            "members": self.members,
            "shards": [shard._asdict() for shard in self.shards],
        }
        return json.dumps(said, indent=1) + "\n"

    @classmethod
    def of_json(cls, text: bytes, where: str) -> Contents:
        """Read it.

        Raises:
            ShardsError: it is of another version, or damaged.
        """
        try:
            said: Any = json.loads(text)
            version = said["format"]
            if version != FORMAT:
                raise ShardsError(
                    f"{where}: shards of format {version!r:.60}, this version reads {FORMAT}: "
                    "install the version that wrote them, or write them anew"
                )
            index = said["index"]
            shards = [Shard(str(s["name"]), int(s["bytes"])) for s in said["shards"]]
            names = [index["name"], *(shard.name for shard in shards)]
            if any(posixpath.basename(name) != name or "\\" in name for name in names):
                raise ValueError(names)
            return cls(
                index["name"], int(index["bytes"]), str(index["sha256"]), int(said["members"]),
                tuple(shards),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise ShardsError(f"{where}: damaged, no description of shards") from error
