"""The parts of a list's features: which are missing, and what is wrong with those there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from timesformer.inference.features import PARTS, failures, part_name, parts_there
from timesformer.inference.passes import Look, Pass, PassDataset
from timesformer.inference.settings import Settings
from timesformer.utils.claims import Claims
from timesformer.utils.files import write_csv
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted

logger = get_logger(__name__)


@dataclass
class Work:
    """The parts of a share that are missing, each claimed when its turn comes.

    Attributes:
        folder: where they are written.
        settings: with their number of videos.
        look: says the passes of a part.
        dataset: knows the videos.
        claims: of all parts; part p has the number p + 1.
        share: (i, n).
        made: parts that this run has claimed.
    """

    folder: Path
    settings: Settings
    look: Look
    dataset: PassDataset
    claims: Claims
    share: tuple[int, int]

    def __post_init__(self) -> None:
        self.made: list[int] = []
        count = -(-len(self.dataset.records) // (self.settings.part or 1))
        self.numbers = range(self.share[0] - 1, count, self.share[1])

    def there(self) -> list[int]:
        """Return the parts of the share that are there."""
        names = parts_there(self.folder, self.settings.file_format)
        return [n for n in self.numbers if part_name(n, self.settings.file_format) in names]

    def videos(self, parts: Iterable[int]) -> int:
        """Return how many videos are in these parts."""
        return sum(len(self.videos_of(part)) for part in parts)

    def videos_of(self, part: int) -> range:
        """Return the places of a part's videos in the list."""
        size = self.settings.part or 1
        return range(part * size, min((part + 1) * size, len(self.dataset.records)))

    def passes(self) -> Iterator[list[Pass]]:
        """Yield the passes of what is missing and nobody else is doing, each in a list."""
        there = {*self.there()}
        for part in self.numbers:
            if part in there or not self.claims.take(part + 1):
                continue
            name = part_name(part, self.settings.file_format)
            if (self.folder / PARTS / name).exists():  # written by another run since
                self.claims.release(part + 1)
                continue
            self.made.append(part)
            for one in self.look.passes(part, self.videos_of(part), self.dataset.length):
                yield [one]


def write_failed(work: Work, parts: Iterable[int]) -> int:
    """List the videos of a share that couldn't be read in failed.csv; return how many.

    Raises:
        UserError: a part isn't what it should be.
    """
    share, rows = work.share, []
    newer = Newer()
    for part in parts:
        if part not in work.made:
            newer.look(work, part)
        rows += failures(work.folder, part, work.settings.file_format, work.videos_of(part))
    newer.tell()
    name = "failed.csv" if share == (1, 1) else f"failed-{share[0]}-of-{share[1]}.csv"
    if rows:
        write_csv(work.folder / name, [["index", "path", "error"], *rows])
    else:
        (work.folder / name).unlink(missing_ok=True)
    return len(rows)


@dataclass
class Newer:
    """Notes videos that were written after their features, and says so.

    Attributes:
        count: of them.
        first: a path, and the part that has it.
    """

    count: int = 0
    first: tuple[str, Path] | None = None

    def look(self, work: Work, part: int) -> None:
        """Note the videos of a part."""
        place = work.folder / PARTS / part_name(part, work.settings.file_format)
        made = place.stat().st_mtime_ns
        for index in work.videos_of(part):
            path = work.dataset.records[index].path
            with suppress(OSError, ValueError):  # it isn't there any more
                if os.stat(path).st_mtime_ns > made:  # noqa: PTH116
                    self.count += 1
                    self.first = self.first or (path, place)

    def tell(self) -> None:
        """Log them."""
        if self.first is not None:
            said = (
                "%s: newer than its features (%s): where a video has changed, delete its part, %s"
            )
            logger.warning(said, self.first[0], counted(self.count, "such video"), self.first[1])
