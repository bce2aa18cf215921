"""Where a record's frames come from: a video file, by either decoder, or a folder of frames."""

from __future__ import annotations

import os
from dataclasses import dataclass

from timesformer.datasets.video import decode, frame_folder, torchcodec
from timesformer.datasets.video.decode import TIMEOUT, Clips, Place


@dataclass(frozen=True)
class VideoReader:
    """Reads clips.

    Attributes:
        backend: pyav or torchcodec; both give the same frames.
        timeout: seconds after which a file counts as broken.
        frames_fps: rate in frames/s at which folders of frames were extracted.
    """

    backend: str = "pyav"
    timeout: float = TIMEOUT
    frames_fps: float = 30.0

    def __post_init__(self) -> None:
        if self.backend == "torchcodec":
            torchcodec.check_torchcodec()

    def __call__(self, path: str, place: Place) -> Clips:
        """Read clips in one pass over a file, or from a folder of frames.

        Args:
            path: the file or folder.
            place: told the number of frames and frames per second, says where the clips lie.

        Raises:
            VideoError: it can't be read.
        """
        if "\0" not in path and os.path.isdir(path):  # noqa: PTH112
            return frame_folder.load_clips(path, place, self.frames_fps)
        if self.backend == "torchcodec":
            return torchcodec.load_clips(path, place, self.timeout)
        return decode.load_clips(path, place, self.timeout)
