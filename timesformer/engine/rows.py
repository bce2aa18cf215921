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

    Args:
        views: n.
        method: how views make a video's score, see `ensemble`.
        several: whether videos have several labels.
        keep_views: keep the scores of every view too.
    """

    def __init__(self, views: int, method: str, several: bool, keep_views: bool) -> None:
        self.views = views
        self.method = method
        self.several = several
        self.keep_views = keep_views
        self.videos: list[int] = []
        self.scores: list[Tensor] = []
        self.per_view: list[Tensor] = []
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
            self.videos.append(video)
            self.scores.append(ensemble(per_view[None], self.method, self.several)[0])
            if self.keep_views:
                self.per_view.append(per_view)


def join_rows(ranks: Sequence[Rows], shape: tuple[int, int, int], failed: Sequence[int]) -> Table:
    """Make one table of all ranks' rows.

    Args:
        ranks: the rows of each.
        shape: (V, n, K).
        failed: videos that couldn't be read.

    Raises:
        MissingViewError: a video isn't there exactly once.
    """
    V, n, K = shape
    keep_views = ranks[0].keep_views
    scores = torch.full((V, K), torch.nan)
    per_view = torch.full((V, n, K), torch.nan) if keep_views else None
    times = torch.zeros(V, dtype=torch.long)
    times[list(failed)] += 1
    for rows in ranks:
        if rows.wrong:
            raise MissingViewError(*rows.wrong[0])
        for i, video in enumerate(rows.videos):
            times[video] += 1
            scores[video] = rows.scores[i]
            if per_view is not None:
                per_view[video] = rows.per_view[i]
    if not bool((times == 1).all()):
        video = int((times != 1).nonzero()[0])
        raise MissingViewError(video, 0, int(times[video]))
    return Table(scores, per_view)
