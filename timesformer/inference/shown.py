"""What is shown of a video that somebody brings: the answer, and the clip that the model saw.

Shape letters: T frames, H×W pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from timesformer.clips.sampling import ClipPosition
from timesformer.clips.transform import to_pictures
from timesformer.clips.windows import seconds_of
from timesformer.datasets.lists.records import Images
from timesformer.datasets.video.decode import Clips, Place
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.requests import Cut
from timesformer.datasets.video.whole import WholeVideo
from timesformer.inference.prediction import TOPK, Prediction
from timesformer.inference.predictor import Predictor
from timesformer.inference.timeline import Timeline, timeline
from timesformer.inference.windows import span_of
from timesformer.utils.errors import VideoError

MEGABYTE = 1_000_000
LONG = 3  # a video of more clips than that also gets a timeline
WINDOWS = 60  # of a timeline, at most: nobody waits for more


@dataclass(frozen=True)
class Limits:
    """What is taken of people whom nobody knows.

    Attributes:
        megabytes: of a file.
        seconds: of a video.
    """

    megabytes: float = 200
    seconds: float = 600

    @property
    def words(self) -> str:
        """The limits for people."""
        return f"{self.megabytes:g} MB and {self.seconds:g} s"

    def check(self, path: str) -> float:
        """Return how many seconds a video lasts.

        Raises:
            VideoError: it can't be read, or is beyond a limit.
        """
        size = os.stat(path).st_size / MEGABYTE  # noqa: PTH116
        if size > self.megabytes:
            raise VideoError(path, f"{size:.4g} MB, and {self.megabytes:g} MB is the limit")
        seconds = WholeVideo(path).duration
        if seconds > self.seconds:
            raise VideoError(path, f"{seconds:.4g} s long, and {self.seconds:g} s is the limit")
        return seconds


NO_LIMITS = Limits(math.inf, math.inf)


@dataclass(frozen=True)
class SeenClip:
    """A clip that a model saw.

    Attributes:
        frames: the pixels that it saw, in the middle crop where there are three (T, H, W, 3).
        moments: when the frames are shown, in seconds from the video's first one (T).
        number: of the clip among those of the video, from 1.
    """

    frames: NDArray[np.uint8]
    moments: Sequence[float]
    number: int


@dataclass(frozen=True)
class Answer:
    """What came of a video.

    Attributes:
        prediction: has an `error` where the video couldn't be read, or is beyond a limit.
        seconds: that the video lasts; 0 if nobody knows.
        clip: the middle one of those that the model saw; None where there is an error.
    """

    prediction: Prediction
    seconds: float = 0.0
    clip: SeenClip | None = None


def look_at(
    predictor: Predictor, path: str | os.PathLike[str], limits: Limits = NO_LIMITS, topk: int = TOPK
) -> Answer:
    """Predict a video, and keep what the model saw of it; the file is decoded once.

    Args:
        predictor: the model.
        path: a video file.
        limits: what is taken.
        topk: classes that `Prediction.top` names.

    Raises:
        UserError: scores aren't finite.
    """
    name, reader = os.fspath(path), _KeepingReader()
    try:
        seconds = limits.check(name)
    except VideoError as error:
        told = Prediction(
            name, None, predictor.testing, predictor.class_names, error=error.reason, topk=topk
        )
        return Answer(told)
    [prediction] = predictor.stream([name], topk=topk, reader=reader)
    if prediction.error is not None:
        return Answer(prediction, seconds)
    crops = predictor.model.crops(predictor.testing.num_crops)
    return Answer(prediction, seconds, reader.middle(crops.crops))


def timeline_of(predictor: Predictor, path: str, seconds: float) -> Timeline | None:
    """Return what is in a video and when; None unless it is much longer than what a clip spans.

    Nor has a model one that takes frames of equal parts of a video, however long it is.

    Args:
        predictor: the model.
        path: a video file.
        seconds: that it lasts.

    Raises:
        VideoError: it can't be read.
        UserError: scores aren't finite.
    """
    stride = _stride(predictor, seconds)
    return None if stride is None else timeline(predictor, path, stride=stride)


def is_long(predictor: Predictor, seconds: float) -> bool:
    """Tell whether a video of so many seconds gets a timeline."""
    return _stride(predictor, seconds) is not None


def _stride(predictor: Predictor, seconds: float) -> float | None:
    """Return the distance of a timeline's windows, half of one or more; None for no timeline."""
    if predictor.model.sampling["sampling_rate"] is None:
        return None
    span = span_of(predictor.model.sampling, None)
    return max(span / 2, (seconds - span) / (WINDOWS - 1)) if seconds > LONG * span else None


@dataclass(frozen=True)
class _KeepingReader(VideoReader):
    """Reads clips, and keeps those of the last video.

    Attributes:
        kept: frames as they are before they are cropped, and their numbers, of each clip.
        clock: frames and frames/s of the video.
    """

    kept: list[tuple[Tensor, ClipPosition]] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)

    def __call__(
        self, path: str, place: Place, cuts: Sequence[Cut] = (), images: Images | None = None
    ) -> Clips:
        places: list[ClipPosition] = []

        def place_and_note(frames: int, fps: float) -> Sequence[ClipPosition]:
            self.clock[:] = frames, fps
            places[:] = place(frames, fps)
            return places

        clips = super().__call__(path, place_and_note, cuts, images)
        self.kept[:] = zip(clips.frames, places, strict=True)
        return clips

    def middle(self, crop: Cut) -> SeenClip:
        """Return the middle clip, cut by what makes crops (S, 3, T, H, W) of frames."""
        number = (len(self.kept) - 1) // 2
        frames, position = self.kept[number]
        cut, (length, fps) = crop(frames), self.clock
        return SeenClip(
            frames=to_pictures(cut[len(cut) // 2]),
            moments=seconds_of(position, int(length), fps),
            number=number + 1,
        )
