"""What is in a data set: its lists, every file probed in parallel, and what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fvcore.common.config import CfgNode

from timesformer.clips.sampling import RateSampler
from timesformer.datasets.build import SPLITS, build_video_split
from timesformer.datasets.decoder import decode_all, probe
from timesformer.datasets.lists.records import Images, Record, Records, class_counts
from timesformer.datasets.video.frame_folder import list_frames
from timesformer.datasets.video.index import CUT_SHORT
from timesformer.datasets.video.shards import Member, MemberFolder, Shards, VideoPath
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.transcode import read_folder
from timesformer.utils.errors import AnnotationError, VideoError
from timesformer.utils.files import is_inside, open_regular
from timesformer.utils.processes import CRASHED

MISSING, BROKEN = "missing", "broken"
DECODE_ALL_TIMEOUT = 3600.0  # seconds to decode a whole file
FINGERPRINT = 1 << 16  # bytes of either end of a file


class VideoReport(NamedTuple):
    """What was found out about one file.

    Attributes:
        real: its path without symbolic links.
        same: equal for files of equal content.
        kind: MISSING, BROKEN or "".
        reason: why, in words.
        outside: symbolic links lead out of the folder that it should be in.
        fps: frames per second; 0 like the next ones if it can't be read.
        short_side: pixels.
        duration: seconds.
        size: bytes of a file; 0 of a folder, and in shards.
    """

    real: str
    same: str
    kind: str = ""
    reason: str = ""
    outside: bool = False
    fps: float = 0.0
    short_side: int = 0
    duration: float = 0.0
    size: int = 0


@dataclass(frozen=True)
class InspectOptions:
    """How files are inspected; picklable, for worker processes.

    Attributes:
        decode: decode every frame rather than the first one.
        root: folder that symbolic links must not leave; "" allows all.
        frames_fps: rate of videos that are folders of extracted frames.
        timeout: seconds for a file, unless all of it is decoded.
        shards: where paths below their folder are looked up.
        digests: hold what is in shards against the SHA-256 of their index.
    """

    decode: bool = False
    root: str = ""
    frames_fps: float = 30.0
    timeout: float = 120.0
    shards: Shards | None = None
    digests: bool = False

    def __call__(self, path: str, images: Images | None = None) -> VideoReport:
        """Inspect a video file or a folder of frames; raises nothing for any content.

        Args:
            path: the video.
            images: those of a folder that are meant; None for all.
        """
        if self.shards and self.shards.holds(path):
            return self._in_shards(path, images, self.shards)
        real = os.path.realpath(path)
        outside = bool(self.root) and _leaves(self.root, path, real)
        report = VideoReport(real, same=real, outside=outside)
        if not os.path.exists(path):  # noqa: PTH110  (Path's raises for a name that is too long)
            reason = "a symbolic link to nothing" if os.path.islink(path) else "no such file"  # noqa: PTH114
            return report._replace(kind=MISSING, reason=reason)
        try:
            fps, short_side, duration = self._measure(path, images)
        except VideoError as error:
            return report._replace(kind=BROKEN, reason=error.reason)
        same, size = (real, 0) if Path(real).is_dir() else _fingerprint(real)
        return report._replace(
            same=same, fps=fps, short_side=short_side, duration=duration, size=size
        )

    def _in_shards(self, path: str, images: Images | None, shards: Shards) -> VideoReport:
        report = VideoReport(path, same=path)
        try:
            found = shards.find(path)
        except VideoError as error:
            return report._replace(kind=MISSING, reason=error.reason)
        try:
            if isinstance(found, Member):
                report = report._replace(same=found.entry.digest)
            if self.digests:
                for member in (found,) if isinstance(found, Member) else found.members():
                    member.check()
            fps, short_side, duration = self._measure(found, images)
        except VideoError as error:
            return report._replace(kind=BROKEN, reason=f"{error.reason} ({error.path})")
        return report._replace(fps=fps, short_side=short_side, duration=duration)

    def of_record(self, video: tuple[str, Images | None]) -> VideoReport:
        """Inspect a record's path and images."""
        return self(*video)

    def _measure(
        self, path: VideoPath | MemberFolder, images: Images | None
    ) -> tuple[float, int, float]:
        if isinstance(path, MemberFolder) or (isinstance(path, str) and Path(path).is_dir()):
            frames = read_folder(path, images)
            short_side = min(next(frames).shape[:2])
            if self.decode:
                deque(frames, maxlen=0)
            return self.frames_fps, short_side, len(list_frames(path, images)) / self.frames_fps
        info, damage = probe(path, self.timeout), ""
        if self.decode:
            decoded = sum(1 for _ in decode_all(path, DECODE_ALL_TIMEOUT))
            if decoded < CUT_SHORT * info.frames:
                damage = f"ends after {decoded} of {info.frames} frames"
        if info.damage or damage:
            raise VideoError(path, info.damage or damage)
        return info.fps, min(info.width, info.height), info.duration

    def crashed(self, path: str) -> VideoReport:
        """Report a file that took its process down with it."""
        real = os.path.realpath(path)
        return VideoReport(real, same=real, kind=BROKEN, reason=CRASHED)


def _fingerprint(path: str) -> tuple[str, int]:
    """Size and both ends of a file, enough to tell videos, and quick; and its size."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - FINGERPRINT))
        end = file.read()
        file.seek(0)
        return f"{size} {hashlib.sha256(file.read(FINGERPRINT) + end).hexdigest()}", size


def _leaves(root: str, path: str, real: str) -> bool:
    if real == os.path.abspath(path):  # noqa: PTH100  (no link at all; resolve() would follow)
        return False
    root = os.path.realpath(root)
    return not is_inside(root, real)


@dataclass(frozen=True)
class SplitReport:
    """A split with what was found out about each of its videos.

    Attributes:
        name: train, val or test.
        dataset: its videos are `dataset.records`.
        videos: a report for each record.
        num_classes: MODEL.NUM_CLASSES.
    """

    name: str
    dataset: VideoDataset
    videos: Sequence[VideoReport]
    num_classes: int

    def where(self, index: int) -> str:
        """Name the place of a record in its list: "train.csv, line 17"; "" if it has none."""
        records = self.dataset.records
        return records.where(index) if isinstance(records, Records) else ""

    @property
    def class_counts(self) -> np.ndarray:
        """Videos of each class (K,)."""
        return class_counts(self.dataset.records, self.num_classes)

    def values(self, name: str) -> np.ndarray:
        """Return `fps`, `short_side` or `duration` of all files that can be read."""
        return np.array([getattr(video, name) for video in self.videos if not video.kind])

    @property
    def clip_seconds(self) -> float:
        """What one training clip spans; 0 if clips cover the whole video, whatever its length."""
        sampler = self.dataset.sampler
        if not isinstance(sampler, RateSampler):
            return 0.0
        return sampler.num_frames * sampler.sampling_rate / sampler.target_fps

    @property
    def shorter_than_a_clip(self) -> int:
        """Videos, or parts of videos, that repeat their last frame in a clip."""
        pairs = zip(self.dataset.records, self.videos, strict=True)
        lengths = (_seconds(record, video) for record, video in pairs if not video.kind)
        return sum(length < self.clip_seconds - 1e-6 for length in lengths)


def _seconds(record: Record, video: VideoReport) -> float:
    """Duration of the record's part of the file."""
    end = video.duration if record.end is None else record.end / video.fps
    return min(end, video.duration) - record.start / video.fps


def read_splits(
    cfg: CfgNode, splits: Sequence[str] | None = None
) -> tuple[dict[str, VideoDataset], dict[str, str]]:
    """Build the data sets of a config as training would, but whole: DATA.FRACTION is left out.

    Lists that are written of a share would be shared out once more where they are trained on.

    Args:
        cfg: the config.
        splits: of train, val and test; None for all.

    Returns:
        The data sets, and what is wrong with the lists of the others.

    Raises:
        AnnotationError: no list can be read.
        ConfigError: there is no such data set, or it isn't one of video files.
    """
    datasets: dict[str, VideoDataset] = {}
    unreadable: dict[str, str] = {}
    cfg = cfg.clone()
    cfg.DATA.FRACTION = 1.0
    for split in splits or SPLITS:
        try:
            datasets[split] = build_video_split(cfg, split)
        except AnnotationError as error:
            unreadable[split] = str(error)
    if not datasets:
        raise AnnotationError(next(iter(unreadable.values())))
    return datasets, unreadable
