"""Where a record's frames come from: a video file, by either decoder, or a folder of frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch

from timesformer.clips.sampling import ClipPosition, sampler_of, view_start
from timesformer.datasets.lists.records import Images
from timesformer.datasets.video import decode, frame_folder, torchcodec
from timesformer.datasets.video.decode import TIMEOUT, Clips, Place
from timesformer.datasets.video.held import holding
from timesformer.datasets.video.probe import length_of
from timesformer.datasets.video.requests import Cut
from timesformer.datasets.video.shards import Member, MemberFolder, Shards, VideoPath
from timesformer.utils.errors import VideoError
from timesformer.utils.files import is_file
from timesformer.utils.retry import persistently


@dataclass(frozen=True)
class VideoReader:
    """Reads clips.

    Attributes:
        backend: pyav or torchcodec; both give the same frames.
        timeout: seconds after which a file counts as broken.
        frames_fps: rate in frames/s at which folders of frames were extracted.
        shards: where paths below their folder are looked up; None where all videos are files.
    """

    backend: str = "pyav"
    timeout: float = TIMEOUT
    frames_fps: float = 30.0
    shards: Shards | None = None

    def __post_init__(self) -> None:
        if self.backend == "torchcodec":
            torchcodec.check_torchcodec()

    def __call__(
        self, path: str, place: Place, cuts: Sequence[Cut] = (), images: Images | None = None
    ) -> Clips:
        """Read clips in one pass over a file, or from a folder of frames.

        Errors of storage that may pass are waited for (`utils.retry`).

        Args:
            path: the file or folder.
            place: told the number of frames and frames per second, says where the clips lie.
            cuts: for each clip, what makes of a frame (H, W, 3) the tensor that is kept of it;
                none for the frames themselves.
            images: those of a folder that are meant; None for all.

        Raises:
            VideoError: it can't be read, or hasn't these images.
        """
        places: list[ClipPosition] = []

        def place_once(frames: int, fps: float) -> Sequence[ClipPosition]:
            # However often the file is read, its random clips lie where they lay first.
            places[:] = places or place(frames, fps)
            return places

        with holding(path):
            return persistently(lambda: self._read(path, place_once, cuts, images), path)

    def length(self, path: str, images: Images | None = None) -> tuple[int, float]:
        """Return a video's number of frames and frames per second, as clips are placed by them.

        Args:
            path: the file or folder.
            images: those of a folder that are meant; None for all.

        Raises:
            VideoError: it can't be read.
        """
        with holding(path):
            found = self.find(path)
            if isinstance(found, MemberFolder) or _is_folder(found):
                return len(frame_folder.list_frames(found, images)), self.frames_fps
            return persistently(lambda: length_of(found, self.timeout), path)

    def find(self, path: str) -> VideoPath | MemberFolder:
        """Return what is read of a path: itself, or what shards have of that name.

        Raises:
            VideoError: it is below the shards' folder, and they don't have it.
        """
        return self.shards.find(path) if self.shards and self.shards.holds(path) else path

    def is_folder(self, path: str) -> bool:
        """Tell whether a path is that of a folder, of files or in shards."""
        try:
            found = self.find(path)
        except VideoError:
            return False
        return isinstance(found, MemberFolder) or _is_folder(found)

    def is_file(self, path: str) -> bool:
        """Tell whether a path is that of a file, by itself or in shards."""
        try:
            found = self.find(path)
        except VideoError:
            return False
        return isinstance(found, Member) or (isinstance(found, str) and is_file(found))

    def _read(self, path: str, place: Place, cuts: Sequence[Cut], images: Images | None) -> Clips:
        found = self.find(path)
        if isinstance(found, MemberFolder) or _is_folder(found):
            return frame_folder.load_clips(found, place, self.frames_fps, cuts, images)
        is_there = isinstance(found, Member) or os.path.isfile(path)  # noqa: PTH113
        if images and (images.first or images.name) and is_there:
            raise VideoError(path, "a file, but its list says which images of a folder are meant")
        if self.backend == "torchcodec":
            return torchcodec.load_clips(found, place, self.timeout, cuts)
        return decode.load_clips(found, place, self.timeout, cuts)


def _is_folder(found: VideoPath) -> TypeGuard[str]:
    return isinstance(found, str) and "\0" not in found and os.path.isdir(found)  # noqa: PTH112


def load_clip(
    path: str | os.PathLike[str],
    num_frames: int,
    sampling_rate: int | None,
    view: tuple[int, int] | None = (0, 1),
    target_fps: float = 30.0,
    rng: np.random.Generator | None = None,
    clip_sampling: str = "legacy",
    frames_fps: float = 30.0,
) -> torch.Tensor:
    """Read one clip of `num_frames` frames, `sampling_rate` frames apart at `target_fps`.

    `load_clip(path, **model.sampling)` reads those of a model's test with one view.

    Args:
        path: a video file, or a folder of extracted frames.
        num_frames: T.
        sampling_rate: distance of the frames, in frames at `target_fps`; None for one frame of each
            of T equal parts of the video, as for Something-Something.
        view: (i, n) for view i of n along time, None for a random clip.
        target_fps: the frame rate that `sampling_rate` counts in.
        rng: source of the random clip; a fresh, unseeded one when None.
        clip_sampling: where the n views lie: legacy, center, uniform or tiled (see `RateSampler`).
        frames_fps: rate in frames/s at which a folder of frames was extracted.

    Returns:
        Uint8 RGB frames (T, H, W, 3), upright. A video that ends early repeats its last frame.

    Raises:
        VideoError: the video can't be read; nothing else is raised for any content of a file.
    """
    if view is None and rng is None:
        rng = np.random.default_rng()
    sampler = sampler_of(num_frames, sampling_rate, target_fps, clip_sampling)
    if view is not None:
        view_start(0.0, view, clip_sampling)  # a view that isn't there is no fault of the file
    read = VideoReader(frames_fps=frames_fps)
    return read(os.fspath(path), lambda n, fps: [sampler.place(n, fps, view, rng)]).frames[0]
