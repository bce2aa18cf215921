"""Scores on their way from the model to a table: each rank has a row for each of its videos.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from timesformer.engine.results import ensemble


class Table(NamedTuple):
    """Scores of all videos; NaN where one can't be read.

    Attributes:
        scores: (V, K).
        per_view: (V, n, K), or None where views weren't kept.
    """

    scores: Tensor
    per_view: Tensor | None


class MissingViewError(Exception):
    """A view that wasn't scored exactly once."""

    def __init__(self, video: int, view: int, times: int) -> None:
        super().__init__(video, view, times)
        self.video, self.view, self.times = video, view, times


class Rows:
    """The videos of one rank, added batch by batch; a batch has all views of its videos.

    Rows lie in one block from the start: as small tensors they would keep the memory of batches
    from being used again, which is between them.

    Args:
        shape: (V, n, K).
        method: how views make a video's score, see `ensemble`.
        several: whether videos have several labels.
        keep_views: keep the scores of every view too.
    """

    def __init__(
        self, shape: tuple[int, int, int], method: str, several: bool, keep_views: bool
    ) -> None:
        V, n, K = shape
        self.views = n
        self.method = method
        self.several = several
        self.times = torch.zeros(V, dtype=torch.long)
        self.scores = torch.full((V, K), torch.nan)
        self.per_view = torch.full(shape, torch.nan) if keep_views else None
        self.wrong: list[tuple[int, int, int]] = []  # video, view, times

    def add(self, index: Tensor, view: Tensor, scores: Tensor) -> None:
        """Add a batch: scores (B, K) of these views of these videos, both (B,)."""
        for video in dict.fromkeys(index.tolist()):
            mine = index == video
            times = torch.bincount(view[mine], minlength=self.views)
            if not bool((times == 1).all()):
                first = int((times != 1).nonzero()[0])
                self.wrong.append((video, first, int(times[first])))
                continue
            per_view = scores[mine][view[mine].argsort()]
            self.times[video] += 1
            self.scores[video] = ensemble(per_view[None], self.method, self.several)[0]
            if self.per_view is not None:
                self.per_view[video] = per_view

    def found(self) -> Found:
        """Return what this rank has found, without the places of other ranks' videos."""
        videos = self.times.nonzero()[:, 0]
        per_view = None if self.per_view is None else self.per_view[videos]
        return Found(videos, self.times[videos], self.scores[videos], per_view, self.wrong)


class Found(NamedTuple):
    """The rows of a rank, to be sent: videos (R,), how often each came, scores (R, K), views."""

    videos: Tensor
    times: Tensor
    scores: Tensor
    per_view: Tensor | None
    wrong: list[tuple[int, int, int]]


def join_rows(ranks: Sequence[Found], shape: tuple[int, int, int], failed: Sequence[int]) -> Table:
    """Make one table of all ranks' rows.

    Args:
        ranks: the rows of each.
        shape: (V, n, K).
        failed: videos that couldn't be read.

    Raises:
        MissingViewError: a video isn't there exactly once.
    """
    V, _, K = shape
    keep_views = ranks[0].per_view is not None
    scores = torch.full((V, K), torch.nan)
    per_view = torch.full(shape, torch.nan) if keep_views else None
    times = torch.zeros(V, dtype=torch.long)
    times[list(failed)] += 1
    for found in ranks:
        if found.wrong:
            raise MissingViewError(*found.wrong[0])
        times[found.videos] += found.times
        scores[found.videos] = found.scores
        if per_view is not None and found.per_view is not None:
            per_view[found.videos] = found.per_view
    if not bool((times == 1).all()):
        video = int((times != 1).nonzero()[0])
        raise MissingViewError(video, 0, int(times[video]))
    return Table(scores, per_view)
