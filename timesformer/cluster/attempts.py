"""What became of a run each time that its job was started: OUTPUT_DIR/attempts.jsonl.

A job that is killed at once says nothing, so the start of every attempt is noted, and how far the
run had come by then: whether an attempt led to anything is known from where the next one starts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from timesformer.utils.checkpoint_files import Place, numbered_checkpoints, place_of
from timesformer.utils.errors import ANOTHER_ENDED
from timesformer.utils.files import append_line, make_folder
from timesformer.utils.text import counted

FILE_NAME = "attempts.jsonl"
OF_A_RANK = "attempts.rank{}.jsonl"  # of a rank that has failed; each file has one writer
KILLED = "its job was killed before it could say why"
START, RANK, END = "start", "rank", "end"  # what a line is about
AGAIN, FINISHED, GAVE_UP, STOPPED = "again", "finished", "gave up", "stopped"  # what follows an end


def progress_of(output_dir: str | Path) -> Place:
    """Return how far a run has come, by the name of its newest checkpoint."""
    newest = next(iter(numbered_checkpoints(output_dir)), None)
    return (place_of(newest) if newest else None) or Place(0)


class Attempts:
    """The attempts at a run that a submission has made.

    Args:
        output_dir: of the run.
        submission: names the call of `timesformer submit`: another one counts anew.
    """

    def __init__(self, output_dir: str | Path, submission: str) -> None:
        self.output_dir, self.submission = Path(output_dir), submission

    @property
    def path(self) -> Path:
        """The file."""
        return self.output_dir / FILE_NAME

    def lines(self, what: str = "") -> list[dict[str, Any]]:
        """Return what was noted, the oldest first; `what` chooses the kind of line."""
        return [line for line in self._read(self.path) if what in ("", line.get("what"))]

    def _read(self, path: Path) -> list[dict[str, Any]]:
        found = []
        with suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):  # a line that a killed process didn't finish
                    found.append(json.loads(line))
        return [x for x in found if isinstance(x, dict) and x.get("submission") == self.submission]

    def count(self) -> int:
        """Return how many attempts there were, this one too."""
        return len(self.lines(START))

    def begin(self, job: str, host: str) -> int:
        """Note that an attempt starts, and return its number, from 1."""
        make_folder(self.output_dir)
        number = self.count() + 1
        self._note(START, attempt=number, job=job, host=host, place=progress_of(self.output_dir))
        return number

    def note_rank(self, rank: int, status: int, said: str) -> None:
        """Note that a rank has failed in this attempt: the main process may never hear of it."""
        path = self.output_dir / OF_A_RANK.format(rank)
        self._note(RANK, path, attempt=self.count(), rank=rank, status=status, said=said)

    def failed_ranks(self) -> list[dict[str, Any]]:
        """Return what ranks that failed in this attempt said, those first that say the cause."""
        paths = sorted(self.output_dir.glob(OF_A_RANK.format("*")))
        lines = [x for path in paths for x in self._read(path) if x["attempt"] == self.count()]
        return sorted(lines, key=lambda line: ANOTHER_ENDED in line["said"])

    def end(self, status: int, why: str, then: str) -> None:
        """Note how this attempt has ended and what follows."""
        place = progress_of(self.output_dir)
        self._note(END, attempt=self.count(), status=status, why=why, then=then, place=place)

    def outcome(self) -> tuple[str, str]:
        """Return what follows the last attempt, and why; ("", …) if it didn't say."""
        ends = [x for x in self.lines(END) if x.get("attempt") == self.count()]
        return (ends[-1]["then"], ends[-1]["why"]) if ends else ("", KILLED)

    def fruitless(self) -> int:
        """Return how many attempts, one after the other, have started where the run stands now."""
        now = list(progress_of(self.output_dir))
        places = [line.get("place") for line in self.lines(START)]
        return next((i for i, place in enumerate(reversed(places)) if place != now), len(places))

    def given_up(self, tries: int) -> str:
        """Return why there is no use in another attempt, "" if there may be.

        Args:
            tries: attempts that may end where they started, one after the other.
        """
        vain = self.fruitless()
        if vain < tries:
            return ""
        place = progress_of(self.output_dir)
        return (
            f"{counted(vain, 'attempt')} without progress past {place}: {self.outcome()[1]}; "
            f"mend that ({self.output_dir / 'run.log'}, {self.path}) and submit it again: it goes "
            "on from there"
        )

    def _note(self, what: str, path: Path | None = None, **more: Any) -> None:
        said: Mapping[str, Any] = {"submission": self.submission, "what": what, **more}
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        append_line(path or self.path, json.dumps({**said, "time": now, "pid": os.getpid()}))
