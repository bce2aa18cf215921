"""What a video file says of itself."""

from __future__ import annotations

import os
from dataclasses import dataclass

from timesformer.datasets.video.decode import TIMEOUT, load_frames
from timesformer.datasets.video.file import open_video, read_info, typed_errors
from timesformer.datasets.video.index import Deadline
from timesformer.datasets.video.shards import Member, VideoPath


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video stream.

    Attributes:
        frames: number of frames.
        fps: frames per second.
        duration: seconds.
        width: pixels, upright.
        height: pixels, upright.
        codec: name of the compression.
        constant_rate: frames follow each other at one rate, as far as timestamps tell.
        keyframes: frames that decoding can start from; 0 if not known.
        damage: what is wrong with the file as far as its first frame tells; "" if nothing is.
    """

    frames: int
    fps: float
    duration: float
    width: int
    height: int
    codec: str
    constant_rate: bool
    keyframes: int
    damage: str


def probe(path: str | os.PathLike[str] | Member, timeout: float = TIMEOUT) -> VideoInfo:
    """Read what a file says of itself, and its first frame.

    Raises:
        VideoError: the file can't be read.
    """
    name = path if isinstance(path, Member) else os.fspath(path)
    with typed_errors(name), open_video(name) as (container, stream):
        info, _ = read_info(name, container, stream, Deadline(name, timeout))
        seconds = info.frames * info.frame_ticks * float(stream.time_base or 0)
        codec = stream.codec_context.name
    first = load_frames(name, [0], timeout)
    height, width = first.frames[0].shape[1:3]
    return VideoInfo(
        frames=info.frames,
        fps=info.fps,
        duration=seconds or info.frames / info.fps,
        width=width,
        height=height,
        codec=codec,
        constant_rate=info.index is None or info.index.constant_rate,
        keyframes=0 if info.index is None else len(info.index.keys),
        damage=first.damage,
    )


def length_of(path: VideoPath, timeout: float = TIMEOUT) -> tuple[int, float]:
    """Return a file's number of frames and frames per second, without decoding any.

    Raises:
        VideoError: the file can't be read.
    """
    with typed_errors(path), open_video(path) as (container, stream):
        info, _ = read_info(path, container, stream, Deadline(path, timeout))
    return info.frames, info.fps
