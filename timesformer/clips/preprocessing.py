"""What weights expect of their input: everything that makes a clip from the frames of a file.

It is the counterpart of `models.architecture`: written with every checkpoint and saved folder, read
back, and held against what a config says.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from timesformer.clips.sampling import PLACEMENTS
from timesformer.config.allowed import CHOICES

CHANNEL_ORDERS = ("RGB", "BGR")
SAMPLINGS = ("rate", "segments")
OF_TESTS = ("clip_sampling", "num_clips", "num_crops", "ensemble", "multi_label")
"""Fields that say how a test makes a score of a video; nothing that a model was trained on."""

KEYS: dict[str, str] = {
    "mean": "DATA.MEAN",
    "std": "DATA.STD",
    "channel_order": "DATA.REVERSE_INPUT_CHANNEL",
    "num_frames": "DATA.NUM_FRAMES",
    "sampling": "TRAIN.DATASET",
    "sampling_rate": "DATA.SAMPLING_RATE",
    "target_fps": "DATA.TARGET_FPS",
    "clip_sampling": "DATA.TEST_CLIP_SAMPLING",
    "short_side": "DATA.TEST_SHORT_SIDE",
    "crop_size": "DATA.TEST_CROP_SIZE",
    "num_clips": "TEST.NUM_ENSEMBLE_VIEWS",
    "num_crops": "TEST.NUM_SPATIAL_CROPS",
    "ensemble": "DATA.ENSEMBLE_METHOD",
    "multi_label": "DATA.MULTI_LABEL",
}
"""The configuration key that decides each field."""


@dataclass(frozen=True)
class Preprocessing:
    """How frames become the clip that a model was trained on. What isn't known is None.

    Attributes:
        mean: of each channel, for pixels in [0, 1], in the order that the model takes the channels.
        std: standard deviation, likewise; above 0.
        channel_order: "RGB" or "BGR", the order that the model takes.
        num_frames: T.
        sampling: "rate" (a frame every so often, Kinetics) or "segments" (one frame from each of T
            equal parts, Something-Something).
        sampling_rate: frames at `target_fps` from one frame of the clip to the next; means nothing
            for segments.
        target_fps: frames per second that `sampling_rate` counts in.
        short_side: pixels of the short side before the centre crop.
        crop_size: side of the crop in pixels.
        clip_sampling: where the clips of a test lie in a video, see `RateSampler`; means nothing
            for segments.
        num_clips: clips that a test takes of a video.
        num_crops: crops that it takes of each, 1 or 3.
        ensemble: how the scores of these views make the video's, see `clips.ensemble`.
        multi_label: a video may have several of the classes.

    Raises:
        ValueError: a value can't be; the message names the field.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "RGB"
    num_frames: int | None = None
    sampling: str | None = None
    sampling_rate: int | None = None
    target_fps: float | None = None
    short_side: int | None = None
    crop_size: int | None = None
    clip_sampling: str | None = None
    num_clips: int | None = None
    num_crops: int | None = None
    ensemble: str | None = None
    multi_label: bool | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or len(values) != 3:
                raise ValueError(f"{name} must be three numbers, not {values!r:.60}")
            object.__setattr__(self, name, tuple(_number(name, v) for v in values))
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}")
        for name, choices in (
            ("channel_order", CHANNEL_ORDERS),
            ("sampling", SAMPLINGS),
            ("clip_sampling", PLACEMENTS),
            ("num_crops", (1, 3)),
            ("ensemble", CHOICES["DATA.ENSEMBLE_METHOD"]),
            ("multi_label", (True, False)),
        ):
            value = getattr(self, name)
            if value not in choices and (name == "channel_order" or value is not None):
                known = ", ".join(map(str, choices))
                raise ValueError(f"{name} must be one of {known}, not {value!r:.60}")
        for name in (
            *("num_frames", "sampling_rate", "target_fps", "short_side", "crop_size"),
            "num_clips",
        ):
            value = getattr(self, name)
            if value is None:
                continue
            number = _number(name, value)
            if number <= 0 or (name != "target_fps" and not isinstance(value, int)):
                raise ValueError(f"{name} must be a number above 0, not {value!r:.60}")

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_json` wrote.

        Raises:
            ValueError: mean or std is missing, a field isn't known here, or a value can't be.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(str(name) for name in said if name not in known):
            raise ValueError(
                f"the preprocessing has {unknown[0]:.60}, which isn't known here: was it written "
                "by a newer version?"
            )
        if missing := [name for name in ("mean", "std", "channel_order") if name not in said]:
            raise ValueError(f"the preprocessing lacks {missing[0]}")
        return cls(**said)

    def to_json(self) -> dict[str, Any]:
        """Return what is known as plain values."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values if v is not None}

    def differences(self, other: Preprocessing) -> dict[str, tuple[Any, Any]]:
        """Return the fields that both know and that differ, each with both values.

        Not those of `OF_TESTS`: a test is free to choose.
        """
        found = {}
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name in OF_TESTS:
                continue
            if ours is None or theirs is None or _equal(ours, theirs):
                continue
            found[field.name] = (ours, theirs)
        if "segments" in (self.sampling, other.sampling):
            found.pop("sampling_rate", None)
            found.pop("target_fps", None)
        return found


def _number(name: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < sys.float_info.max:  # JSON's whole numbers have no bound
        raise ValueError(f"{name} must be a number, not {value!r:.60}")
    return value


def _equal(ours: Any, theirs: Any) -> bool:
    """Compare; statistics may have been rounded to float32 on their way."""
    if isinstance(ours, tuple):
        return all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(ours, theirs, strict=True))
    return bool(ours == theirs)
