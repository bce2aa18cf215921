"""From a video file to the few uint8 frames that make a clip.

A video is decoded once, in the decoder's order, by one thread; frames that no clip needs are never
converted to RGB, and no decoded frame is kept: an open frame can hold megabytes of scaler.
Frames are counted in decoder order and never sorted by timestamp, because AVI files with B-frames
carry timestamps that aren't monotonic.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from timesformer.datasets.sampling import ClipPosition, RateSampler
from timesformer.utils.errors import VideoError

__all__ = ["VideoError", "load_clip", "load_clips"]

MAX_PIXELS = 8192 * 4320  # a header that asks for more is damaged, or an attack on memory
PLAUSIBLE_FPS = (1.0, 240.0)  # webm files without a rate report 1000


def load_clip(
    path: str | os.PathLike[str],
    num_frames: int,
    sampling_rate: int,
    view: tuple[int, int] | None = (0, 1),
    target_fps: float = 30.0,
    rng: np.random.Generator | None = None,
    clip_sampling: str = "legacy",
) -> torch.Tensor:
    """Read one clip of `num_frames` frames, `sampling_rate` frames apart at `target_fps`.

    Args:
        path: a video file.
        num_frames: T.
        sampling_rate: distance of the frames, in frames at `target_fps`.
        view: (i, n) for view i of n along time, None for a random clip.
        target_fps: the frame rate that `sampling_rate` counts in.
        rng: source of the random clip; a fresh, unseeded one when None.
        clip_sampling: where the n views lie: legacy, center or uniform (see `RateSampler`).

    Returns:
        Uint8 RGB frames (T, H, W, 3), upright. A video that ends early repeats its last frame.

    Raises:
        VideoError: the file can't be read; nothing else is raised for any content of a file.
    """
    if view is None and rng is None:
        rng = np.random.default_rng()
    sampler = RateSampler(num_frames, sampling_rate, target_fps, clip_sampling)
    return load_clips(path, sampler, [view], rng)[0]


def load_clips(
    path: str | os.PathLike[str],
    sampler: RateSampler,
    views: Sequence[tuple[int, int] | None],
    rng: np.random.Generator | None = None,
) -> list[torch.Tensor]:
    """Read several clips of one video in a single pass.

    Args:
        path: a video file.
        sampler: places each clip.
        views: per clip (i, n), or None for a random one.
        rng: source of the random clips.

    Returns:
        For each view uint8 RGB frames (T, H, W, 3).

    Raises:
        VideoError: the file can't be read.
    """
    name = os.fspath(path)
    with _typed_errors(name):
        info = _probe(name)
    clips = [_Clip.plan(info, sampler.place(info.frames, info.fps, v, rng)) for v in views]
    with _typed_errors(name):
        _decode_into(clips, name, info)
    return [torch.from_numpy(np.stack(clip.images)) for clip in clips]


@dataclass(frozen=True)
class _StreamInfo:
    """The clock of a video stream; timestamps (pts) are in its time base.

    Attributes:
        frames: number of frames, as the header says or counted from the packets.
        fps: frames per second.
        first_pts: where the stream starts.
        frame_ticks: mean duration of a frame.
    """

    frames: int
    fps: float
    first_pts: int
    frame_ticks: float

    def pts(self, frame: VideoFrame, index: int) -> int:
        """Timestamp of the frame, from its number where the stream (raw h264) has none."""
        if frame.pts is not None:
            return frame.pts
        return self.first_pts + int(index * self.frame_ticks)


@dataclass
class _Clip:
    """One clip in the making: told of every decoded frame, says how often it wants it."""

    first_pts: int
    last_pts: float
    offsets: tuple[int, ...]
    first_index: int = -1
    images: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def plan(cls, info: _StreamInfo, position: ClipPosition) -> _Clip:
        last = position.start + position.span - 1
        return cls(
            first_pts=info.first_pts + int(position.start * info.frame_ticks),
            last_pts=info.first_pts + last * info.frame_ticks,
            offsets=position.offsets,
        )

    @property
    def missing(self) -> int:
        return len(self.offsets) - len(self.images)

    def wants(self, index: int, pts: int) -> int:
        """How many of the clip's frames this decoded frame is."""
        if self.first_index < 0:
            if pts < self.first_pts:
                return 0
            self.first_index = index
        if pts > self.last_pts:  # the window is over: the clip's last frame, repeated
            return self.missing
        return self.offsets.count(index - self.first_index)


@contextmanager
def _typed_errors(path: str) -> Iterator[None]:
    """Turn whatever a broken file provokes into a `VideoError`.

    Damaged files raise FFmpeg's errors, but also IndexError, AttributeError, UnicodeDecodeError…
    """
    try:
        yield
    except VideoError:
        raise
    except av.error.InvalidDataError as error:
        raise VideoError(path, "damaged, or not a video (invalid data)") from error
    except av.FFmpegError as error:
        raise VideoError(path, (error.strerror or str(error)).rstrip(".").lower()) from error
    except Exception as error:
        raise VideoError(path, f"can't be read ({type(error).__name__}: {error})") from error


@contextmanager
def _open(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream of a local file, single-threaded."""
    if "\0" in path:
        raise VideoError(path.replace("\0", "\\0"), "the path has a NUL character")
    # "file:" and the whitelist keep odd names and playlists from reaching other protocols.
    options = {"protocol_whitelist": "file"}
    with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise VideoError(path, "no video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise VideoError(path, "no decoder for its video stream")
        if context.width * context.height > MAX_PIXELS:
            raise VideoError(path, f"frames of {context.width}x{context.height} are too large")
        context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may also change later
        # An early exit from multi-threaded decoding can hang; one thread per worker is faster too.
        context.thread_count = 1
        yield container, stream


def _probe(path: str) -> _StreamInfo:
    """Read count, duration and rate from the header, from the packets where it has none."""
    with _open(path) as (container, stream):
        rate, tick, start = stream.average_rate, stream.time_base, stream.start_time
        fps = float(rate) if rate else 0.0
        frames, frame_ticks = stream.frames, 0.0
        if frames > 0 and stream.duration:
            frame_ticks = stream.duration / frames
        else:
            frames, frame_ticks = _count_packets(container, stream)
    if frames < 1:
        raise VideoError(path, "the video stream is empty")
    return _make_info(path, frames, fps, frame_ticks, tick, start)


def _make_info(
    path: str,
    frames: int,
    fps: float,
    frame_ticks: float,
    tick: Fraction | None,
    start: int | None,
) -> _StreamInfo:
    """Fill in what is missing: the rate from the timestamps, or the other way round."""
    if not PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1] and frame_ticks > 0 and tick:
        fps = 1 / (frame_ticks * float(tick))
    if not (fps > 0 and math.isfinite(fps)):
        raise VideoError(path, "neither a frame rate nor timestamps")
    if not frame_ticks > 0:
        frame_ticks = 1 / (fps * float(tick)) if tick else 1.0
    return _StreamInfo(frames, fps, start or 0, frame_ticks)


def _count_packets(container: InputContainer, stream: VideoStream) -> tuple[int, float]:
    """Count the frames and their mean duration without decoding; 0.0 without timestamps."""
    count, stamps = 0, []
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        count += 1
        if packet.pts is not None:
            stamps.append(packet.pts)
    if len(stamps) < 2:
        return count, 0.0
    return count, (max(stamps) - min(stamps)) / (len(stamps) - 1)


def _decode_into(clips: Sequence[_Clip], path: str, info: _StreamInfo) -> None:
    """Decode until every clip has its frames; convert only those."""
    to_rgb = _Converter(path)
    last: VideoFrame | None = None
    with _open(path) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            last = frame
            pts = info.pts(frame, index)
            if not _hand_out(clips, [c.wants(index, pts) for c in clips], frame, to_rgb):
                return
        if last is None:
            raise VideoError(path, "no frame could be decoded")
        # The video ends early: its last frame stands for those that aren't there.
        _hand_out(clips, [clip.missing for clip in clips], last, to_rgb)


def _hand_out(
    clips: Sequence[_Clip], counts: Sequence[int], frame: VideoFrame, to_rgb: _Converter
) -> bool:
    """Give each clip its copies of the frame; say whether any clip still lacks frames."""
    if any(counts):
        image = to_rgb(frame)
        for clip, count in zip(clips, counts, strict=True):
            clip.images.extend([image] * count)
    return any(clip.missing for clip in clips)


class _Converter:
    """Converts frames to upright RGB, with one scaler for the whole video: each costs megabytes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.scaler = VideoReformatter()
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        size = (frame.width, frame.height)
        if self.size is None:
            self.size = size
        elif size != self.size:
            was, now = ("x".join(map(str, s)) for s in (self.size, size))
            raise VideoError(self.path, f"the frame size changes from {was} to {now}")
        image = self.scaler.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.rot90(image, turns) if turns else image
