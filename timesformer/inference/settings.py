"""What is asked of `extract`: the settings, and what follows from them for a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from timesformer.clips.sampling import RateSampler, sampler_of
from timesformer.clips.windows import WindowSampler
from timesformer.inference.encoder import LAST
from timesformer.inference.features import VideoFeatures
from timesformer.inference.passes import Look
from timesformer.inference.predictor import BATCH, Predictor
from timesformer.utils.errors import UserError

LEAST_STRIDE = 1e-3  # seconds
PART = 64  # videos in a file, of one row each
LARGER_PART = 16  # of rows of windows, frames or patches


@dataclass(frozen=True)
class Settings:
    """What is extracted.

    Attributes:
        level: what has a row: clip, frame or patch.
        layer: the block after which features are read, from 0, negative from the end.
        views: clips x crops of a video, e.g. "1x3"; those of the test when None. Of patches, and of
            windows, there is one crop unless this says 3; windows take the place of clips.
        stride: seconds from one window to the next; None for the test's clips.
        file_format: npz, parquet or npy.
        fp16: features are stored as float16.
        part: videos in a file; PART or LARGER_PART when None.
        batch_size: clips in a forward pass, at most.
    """

    level: str = "clip"
    layer: int = LAST
    views: str | None = None
    stride: float | None = None
    file_format: str = "npz"
    fp16: bool = False
    part: int | None = None
    batch_size: int = BATCH


def look_of(predictor: Predictor, settings: Settings) -> Look:
    """Return how videos are looked at: the test's views, or what the settings say.

    Raises:
        UserError: these views can't be, or windows where nothing says how long a clip is.
    """
    told = predictor.testing
    if settings.views is not None:
        told = predictor.with_views(settings.views).testing
    elif settings.level == "patch" or settings.stride is not None:
        told = told._replace(num_crops=1)
    if settings.level == "patch" and told.num_crops > 1:
        raise UserError(f"views {told.views}: maps of patches of several crops have no mean: Cx1")
    if settings.stride is None:
        return Look(told, None, settings.batch_size)
    if settings.views is not None and told.num_clips > 1:
        raise UserError(f"views {told.views}: windows take the place of clips: 1x{told.num_crops}")
    if settings.stride < LEAST_STRIDE:  # a mistake; it would be at work for ever
        raise UserError(f"stride {settings.stride:g}: must be {LEAST_STRIDE:g} s or more")
    sampler = sampler_of(**predictor.model.sampling)
    if not isinstance(sampler, RateSampler):
        raise UserError(
            "stride: the model takes frames of equal parts of a video, however long it is, so "
            "nothing says how long a window is: leave it out"
        )
    windows = WindowSampler(sampler, settings.stride)
    return Look(told._replace(num_clips=1), windows, settings.batch_size)


def share_of(word: str) -> tuple[int, int]:
    """Read "i/n", the i-th of n shares of a list, from 1.

    Raises:
        UserError: it is something else.
    """
    i, _, n = word.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UserError(f"--shard {word:.60}: i/n, the i-th of n shares, from 1/n to n/n")
    return int(i), int(n)


def part_of(settings: Settings, look: Look) -> int:
    """Return how many videos are in a file: as many as asked for, in whole passes."""
    single = settings.level == "clip" and look.windows is None
    part = settings.part or (PART if single else LARGER_PART)
    return -(-part // look.group) * look.group


def stored(row: VideoFeatures, fp16: bool) -> VideoFeatures:
    """Return a row in the precision that is stored.

    Raises:
        UserError: float16 can't hold it.
    """
    if not fp16:
        return row
    with np.errstate(over="ignore"):
        half = row.features.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(f"{row.path}: features beyond what float16 holds: leave fp16 out")
    return replace(row, features=half)
