"""Forward passes that are full: the clips of one video and of the next, side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


def filled(
    score: Callable[[Tensor], Tensor], videos: Iterable[tuple[Key, Tensor]], size: int
) -> Iterator[tuple[Key, Tensor]]:
    """Score the clips of videos, in forward passes of `size` clips; the last one may have fewer.

    Args:
        score: maps clips (B, …) to scores (B, K).
        videos: what each is known by, and its clips (n, …), n may be 0.
        size: clips in a pass.

    Yields:
        Each video in its turn, with its scores (n, K).
    """
    waiting: deque[tuple[Key, int]] = deque()
    clips: list[Tensor] = []  # not scored yet
    scores: list[Tensor] = []  # of clips whose video isn't complete
    for key, given in videos:
        waiting.append((key, len(given)))
        if len(given):
            clips.append(given)
        while sum(map(len, clips)) >= size:
            block = torch.cat(clips)
            scores.append(score(block[:size]))
            clips = [block[size:]] if len(block) > size else []
        yield from _complete(waiting, scores)
    if clips:
        scores.append(score(torch.cat(clips)))
    yield from _complete(waiting, scores)


def _complete(
    waiting: deque[tuple[Key, int]], scores: list[Tensor]
) -> Iterator[tuple[Key, Tensor]]:
    """Take from both what belongs to videos of which every clip is scored."""
    there = torch.cat(scores) if scores else torch.empty(0, 0)
    at = 0
    while waiting and waiting[0][1] <= len(there) - at:
        key, count = waiting.popleft()
        yield key, there[at : at + count]
        at += count
    scores[:] = [there[at:]] if len(there) > at else []
