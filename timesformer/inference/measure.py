"""An exported model beside the one that it was made of: how far apart, and how fast.

Letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from timesformer.datasets.lists.records import Records
from timesformer.inference.formats import About
from timesformer.inference.predictor import Predictor
from timesformer.utils.errors import UserError
from timesformer.utils.logging import progress

BATCHES = (1, 3, 8)
ROUNDS, WITHIN = 9, 20.0  # of timing; seconds after which no further round is begun
Compute = Callable[[Tensor], Tensor]


class Speed(NamedTuple):
    """Milliseconds of a clip: medians of forward passes of one clip, taken in turn.

    Attributes:
        torch: of the model, as it is in PyTorch.
        exported: of the exported file.
        rounds: passes of each.
        threads: that each computes with.
    """

    torch: float
    exported: float
    rounds: int
    threads: int


class Agreement(NamedTuple):
    """What an exported model says of videos, beside what the model says.

    Attributes:
        videos: that could be read.
        cosine: of both scores of a video, on average.
        lowest: the lowest of these cosines.
        top1: share of the videos for which both name the same class, 0 to 1.
    """

    videos: int
    cosine: float
    lowest: float
    top1: float


def noise(about: About, batch: int, seed: int = 0) -> Tensor:
    """Return clips (B, 3, T, H, W) of noise, of the values that a file takes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *about.shape)
    if about.input == "normalised":
        return torch.randn(shape, generator=generator)
    return (torch.rand(shape, generator=generator) * 255).to(about.dtype)


@torch.no_grad()
def differences(
    model: Compute, exported: Compute, about: About, batches: Sequence[int] = BATCHES
) -> dict[int, tuple[float, float]]:
    """Compute both on the same noise, of so many clips each.

    Returns:
        For each number of clips the largest difference of a logit, and the largest logit; infinity
        where one isn't finite or the shapes differ.
    """
    found = {}
    for batch in progress(batches, "compare"):
        clips = noise(about, batch, batch)
        ours, theirs = model(clips), exported(clips)
        apart = float((ours - theirs).abs().max()) if ours.shape == theirs.shape else math.inf
        found[batch] = (apart if math.isfinite(apart) else math.inf, float(ours.abs().max()))
    return found


@torch.no_grad()
def speed(model: Compute, exported: Compute, about: About) -> Speed:
    """Time both, in turn, so that whatever else the machine does slows both; a warm-up before."""
    took = timed([model, exported], noise(about, 1), ROUNDS, WITHIN)
    ours, theirs = map(statistics.median, took)
    return Speed(ours, theirs, len(took[0]), torch.get_num_threads())


def timed(
    computes: Sequence[Compute],
    clips: Tensor,
    rounds: int,
    within: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Compute the same clips by each, in turn, after a pass of each that doesn't count.

    Args:
        computes: what is timed.
        clips: what each gets.
        rounds: passes of each, at most.
        within: seconds after which no further round is begun; there is one at least.
        clock: what tells the time of a pass, in seconds.

    Returns:
        Milliseconds of each one's passes.
    """
    took: list[list[float]] = [[] for _ in computes]
    begun = time.perf_counter()
    for i in range(rounds + 1):
        if i > 1 and time.perf_counter() - begun > within:
            break
        for compute, times in zip(computes, took, strict=True):
            start = clock()
            compute(clips)
            times.append(1000 * (clock() - start))
    return [times[1:] for times in took]


def agreement(model: Predictor, exported: Predictor, videos: Records) -> Agreement:
    """Ask both about videos, in the test's views; those that can't be read don't count.

    Raises:
        UserError: none can be read.
    """
    cosines: list[float] = []
    same = 0
    pairs = zip(model.stream(videos), exported.stream(videos), strict=True)
    for ours, theirs in progress(pairs, "agreement", len(videos)):
        if ours.scores is None or theirs.scores is None:
            continue
        # In double: of large scores that are alike the cosine is 1, not a little more.
        a, b = ours.scores.double(), theirs.scores.double()
        cosines.append(float(torch.cosine_similarity(a, b, dim=0)))
        same += int(ours.scores.argmax() == theirs.scores.argmax())
    if not cosines:
        raise UserError("--compare: none of the videos can be read")
    mean: Sequence[float] = cosines
    return Agreement(len(cosines), statistics.fmean(mean), min(mean), same / len(cosines))
