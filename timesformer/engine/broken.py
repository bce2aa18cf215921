"""Videos that a run couldn't read: told once, listed in OUTPUT_DIR, and too many are too many."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from timesformer.datasets.video_dataset import FAILED, REPLACED, USED, Problem
from timesformer.utils.distributed import gather_objects, is_main, together
from timesformer.utils.errors import AnnotationError, TrainingError, UserError
from timesformer.utils.files import write_csv
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

FILE_NAME = "broken_videos.csv"
FEW = 3  # unreadable videos that a small data set may have, whatever their share
HEADER = ("split", "path", "where", "reason", "treatment")


def allowed_failures(total: int, max_share: float) -> float:
    """Return how many of `total` videos may be unreadable.

    Args:
        total: videos of the split.
        max_share: DATA.MAX_FAILED. Unless it is 0, a few may be in any case: `FEW`, of a small set
            a fifth.
    """
    few = min(FEW, total // 5) if max_share else 0
    return max(max_share * total, few)


class BrokenVideos:
    """The broken videos of one split.

    Args:
        output_dir: OUTPUT_DIR.
        split: train, val or test.
        total: videos of the split.
        max_share: see `allowed_failures`; more replaced videos stop the run.
    """

    def __init__(
        self, output_dir: str | Path, split: str, total: int, max_share: float = 1.0
    ) -> None:
        self.path = Path(output_dir) / FILE_NAME
        self.split = split
        self.total = total
        self.max_share = max_share
        self.problems: dict[int, Problem] = {}
        self._told: set[tuple[int, str]] = set()
        self._replaced = 0  # on all ranks, as of the last exchange
        self._new = 0  # on this rank since then

    def add(self, problems: Iterable[Problem]) -> None:
        """Take down the problems of a batch; each video is logged once."""
        for problem in problems:
            known = self.problems.get(problem.record)
            if known is None or (known.treatment == USED != problem.treatment):
                self.problems[problem.record] = problem
                self._new += problem.treatment == REPLACED
                self._tell(problem)

    def start_over(self) -> None:
        """Forget the videos of the last pass, but not that they were told."""
        self.problems.clear()

    def take_new(self) -> int:
        """Return how many videos this rank had to replace since it was asked last.

        A step sums it over the ranks and hands it to `check`: a rank that stopped for its own
        videos alone would leave the others waiting for it.
        """
        new, self._new = self._new, 0
        return new

    def check(self, new: int) -> None:
        """Stop all ranks once too many videos had to be replaced.

        Args:
            new: sum of `take_new` over the ranks.

        Raises:
            AnnotationError: they are more than DATA.MAX_FAILED.
        """
        self._replaced += new
        if self._replaced > self._allowed():
            self.gather()

    def gather(self) -> None:
        """Join the problems of all ranks, and write them down.

        Raises:
            AnnotationError: too many videos had to be replaced.
        """
        for problems in gather_objects(self.problems):
            self.problems.update(problems)
        together(lambda: self.write() if is_main() else None)
        self._replaced = len(replaced := self._treated(REPLACED))
        self._refuse(replaced)

    @property
    def failed(self) -> list[int]:
        """Records that couldn't be read, in order."""
        return sorted(i for i, problem in self.problems.items() if problem.treatment != USED)

    def write(self) -> None:
        """Write the list of all splits, keeping what other splits and former runs have found."""
        if not (self.problems or self.path.is_file()):
            return
        rows = {(p.path, p.where): [self.split, *p[1:]] for p in self.problems.values()}
        before = _read_rows(self.path)
        kept = [row for row in before if row[0] != self.split or (row[1], row[2]) not in rows]
        if self.split != "train":  # a test reads every video, so its list is complete
            kept = [row for row in kept if row[0] != self.split]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(self.path, [HEADER, *sorted(kept + list(rows.values()))])

    def _tell(self, problem: Problem) -> None:
        if (problem.record, problem.treatment) not in self._told:
            self._told.add((problem.record, problem.treatment))
            where = f" ({problem.where})" if problem.where else ""
            logger.warning("%s%s: %s; %s", problem.path, where, problem.reason, problem.treatment)

    def require_some(self) -> None:
        """Complain where no video at all could be read.

        Raises:
            TrainingError: on all ranks, once the problems are gathered.
        """
        if len(self.failed) == self.total:
            first = self.problems[0]
            raise TrainingError(
                f"none of the {self.total} {self.split} videos can be read (the first is "
                f"{first.path}: {first.reason}); check DATA.PATH_PREFIX"
            )

    def check_failed(self) -> None:
        """Complain where too many videos couldn't be scored for the metrics to mean much.

        Raises:
            AnnotationError: there are more than DATA.MAX_FAILED.
        """
        self._refuse(self._treated(FAILED))

    def _treated(self, so: str) -> list[Problem]:
        return [problem for problem in self.problems.values() if problem.treatment == so]

    def _allowed(self) -> float:
        return allowed_failures(self.total, self.max_share)

    def _refuse(self, unread: list[Problem]) -> None:
        if len(unread) <= self._allowed():
            return
        raise AnnotationError(
            f"{len(unread)} of {self.total} {self.split} videos can't be read, more than "
            f"DATA.MAX_FAILED ({100 * self.max_share:g} %) allows; they are listed in "
            f"{self.path}, the first is {unread[0].path}: {unread[0].reason}"
        )


def _read_rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        try:
            return [row for row in csv.reader(file) if len(row) == len(HEADER)][1:]
        except csv.Error as error:
            raise UserError(f"{path}: isn't what a run wrote there ({error}): remove it") from error
