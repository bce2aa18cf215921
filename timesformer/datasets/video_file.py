"""Video files as they are found: opening them safely, their clock, and where their frames lie.

Everything a file can provoke here ends as a `VideoError`. Times are timestamps (pts) in the time
base of the stream; frames are numbered in the order in which the decoder puts them out.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from timesformer.utils.errors import VideoError

MAX_PIXELS = 8192 * 4320  # a header that asks for more is damaged, or an attack on memory
MAX_ASPECT = 40  # a longer strip would be resized to gigabytes
PLAUSIBLE_FPS = (1.0, 240.0)  # webm files without a rate report 1000
STRICT = "crccheck+bitstream+buffer+explode"  # FFmpeg's err_detect: report what it would conceal
CUT_SHORT = 0.95  # a file with a smaller share of what it promises is damaged
REORDER_DEPTH = 32  # packets after which the first frame in time must have come


class Deadline:
    """A limit to the time spent on one file."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise a `VideoError` when the time is over."""
        if time.monotonic() > self._end:
            raise VideoError(
                self.path, f"reading took more than {self.seconds:g} s (DATA.DECODE_TIMEOUT)"
            )


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of a file lie whose timestamps can be trusted.

    Attributes:
        pts: timestamp of each frame, ascending.
        keys: numbers of the frames that decoding can start from, ascending.
        seekable: the container finds a frame by its timestamp.
    """

    pts: np.ndarray
    keys: np.ndarray
    seekable: bool

    @property
    def constant_rate(self) -> bool:
        """No timestamp is further than a frame from where a constant rate would put it."""
        count = len(self.pts)
        step = (self.pts[-1] - self.pts[0]) / max(count - 1, 1)
        return bool(np.abs(self.pts - self.pts[0] - np.arange(count) * step).max() <= step)

    def number(self, pts: int | None) -> int:
        """Return the number of the frame with this timestamp, -1 if there is none."""
        if pts is None:
            return -1
        place = int(np.searchsorted(self.pts, pts))
        return place if place < len(self.pts) and self.pts[place] == pts else -1

    def key_before(self, number: int) -> int:
        """Return the last frame up to this one that decoding can start from, or 0."""
        place = int(np.searchsorted(self.keys, number, side="right"))
        return int(self.keys[place - 1]) if place else 0


@dataclass(frozen=True)
class StreamInfo:
    """The clock of a video stream.

    Attributes:
        frames: number of frames, as the header says or counted from the packets.
        fps: frames per second.
        first_pts: where the stream starts.
        frame_ticks: mean duration of a frame.
        expected: at least so many frames must be there.
        index: where the frames lie; None if the timestamps can't be trusted.
        damage: what is wrong with the file, as far as packets tell; "" if nothing is.
    """

    frames: int
    fps: float
    first_pts: int
    frame_ticks: float
    expected: int
    index: FrameIndex | None
    damage: str = ""

    def pts(self, frame: VideoFrame, number: int) -> int:
        """Timestamp of the frame, from its number where the stream (raw h264) has none."""
        if frame.pts is not None:
            return frame.pts
        return self.first_pts + int(number * self.frame_ticks)


@contextmanager
def typed_errors(path: str) -> Iterator[None]:
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
    except MemoryError as error:
        raise VideoError(path, "its frames don't fit into memory") from error
    except Exception as error:
        raise VideoError(path, f"can't be read ({type(error).__name__}: {error})") from error


@contextmanager
def open_video(path: str, strict: bool = True) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream of a local file, single-threaded.

    Args:
        path: a video file.
        strict: decoding raises where it would otherwise conceal an error.
    """
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
        check_size(path, context.width, context.height)
        context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may also change later
        if strict:
            context.options = {**context.options, "err_detect": STRICT}
        # An early exit from multi-threaded decoding can hang; one thread per worker is faster too.
        context.thread_count = 1
        yield container, stream


def check_size(path: str, width: int, height: int) -> None:
    """Refuse frames that no video has, before memory is spent on them.

    Raises:
        VideoError: they are too large or too long.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(path, f"frames of {width}x{height} are too large")
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise VideoError(path, f"frames of {width}x{height} are no picture but a strip")


def read_info(
    path: str, container: InputContainer, stream: VideoStream, deadline: Deadline
) -> tuple[StreamInfo, bool]:
    """Read the clock of a stream that was just opened, and its index.

    Returns:
        The info, and whether packets were read, so that decoding must open the file anew.

    Raises:
        VideoError: the stream is empty, or has neither a rate nor timestamps.
    """
    key = _file_key(path)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key], False
    header_frames, header_ticks = stream.frames, stream.duration or 0
    index = _index_of_header(container, stream)
    frames = header_frames
    ticks = header_ticks / frames if frames > 0 else 0.0
    # The packets of an AVI would only say what its header says, see _index_of_packets.
    read_packets = index is None and not (container.format.name == "avi" and ticks)
    damage = ""
    if read_packets:
        promised = _promised_seconds(container, stream)
        count, counted_ticks, index = _index_of_packets(container, stream, deadline)
        if index is not None and stream.time_base:
            end = float((index.pts[-1] + counted_ticks) * stream.time_base)
            if end < CUT_SHORT * promised:
                damage = f"ends after {end:.3g} of {promised:.3g} s"
        if frames < 1 or not ticks:
            frames, ticks = count, counted_ticks
    if frames < 1:
        raise VideoError(path, "the video stream is empty")
    info = _make_info(path, stream, frames, ticks, index, damage)
    if read_packets:  # the header is quick to read again, the packets aren't
        _remember(key, info)
    return info, read_packets


def starts_as_indexed(container: InputContainer, stream: VideoStream, index: FrameIndex) -> bool:
    """Whether the first frame has the timestamp of the index; reads packets."""
    first = [p.pts for p in islice(container.demux(stream), REORDER_DEPTH) if p.size]
    return (
        None not in first
        and bool(first)
        and min(p for p in first if p is not None) == int(index.pts[0])
    )


# Infos of files whose packets had to be read, the one used last at the end.
_cache: OrderedDict[tuple[str, int, int], StreamInfo] = OrderedDict()
CACHED_FRAMES = 2_000_000  # about 16 MB of timestamps in each worker


def _file_key(path: str) -> tuple[str, int, int]:
    status = os.stat(path)  # noqa: PTH116
    return path, status.st_size, status.st_mtime_ns


def _remember(key: tuple[str, int, int], info: StreamInfo) -> None:
    _cache[key] = info
    total = sum(info.frames for info in _cache.values())
    while total > CACHED_FRAMES and len(_cache) > 1:
        total -= _cache.popitem(last=False)[1].frames


def _make_info(
    path: str,
    stream: VideoStream,
    frames: int,
    ticks: float,
    index: FrameIndex | None,
    damage: str,
) -> StreamInfo:
    """Fill in what is missing: the rate from the timestamps, or the other way round."""
    tick = float(stream.time_base) if stream.time_base else 0.0
    fps, ticks = complete_rate(path, float(stream.average_rate or 0), ticks, tick)
    return StreamInfo(
        frames=frames,
        fps=fps,
        first_pts=stream.start_time or 0,
        frame_ticks=ticks,
        expected=max(stream.frames, frames),
        index=index,
        damage=damage,
    )


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float:
    """When the header says that the video ends; 0 if it doesn't.

    Matroska files have it for each stream. That of the container may be the end of the sound.
    """
    hours, minutes, seconds = 0.0, 0.0, 0.0
    text = stream.metadata.get("DURATION", "")
    if re.fullmatch(r"\d+:\d+:\d+(\.\d+)?", text):
        hours, minutes, seconds = map(float, text.split(":"))
    elif len(container.streams) == 1 and "matroska" in container.format.name:
        seconds = (container.duration or 0) / av.time_base
    return 3600 * hours + 60 * minutes + seconds


def complete_rate(path: str, fps: float, ticks: float, tick: float) -> tuple[float, float]:
    """Return a plausible (frames/s, ticks of a frame), each made from the other where missing.

    Raises:
        VideoError: both are missing.
    """
    if not PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1] and ticks > 0 and tick:
        fps = 1 / (ticks * tick)
    if not (fps > 0 and math.isfinite(fps)):
        raise VideoError(path, "neither a frame rate nor timestamps")
    if not ticks > 0:
        ticks = 1 / (fps * tick) if tick else 1.0
    return fps, ticks


def _index_of_header(container: InputContainer, stream: VideoStream) -> FrameIndex | None:
    """Index of an mp4 or mov of constant rate: its header lists all frames, nothing is read.

    The list has times of decoding; at a constant rate those of display are the same ones, moved.
    """
    entries = getattr(stream, "index_entries", None)  # PyAV from 16 on
    if "mp4" not in container.format.name or entries is None:
        return None
    if not (
        stream.frames == len(entries) > 1 and stream.duration and stream.start_time is not None
    ):
        return None
    rows = np.array([(e.timestamp, e.is_keyframe, e.is_discard) for e in entries], np.int64)
    steps = np.diff(rows[:, 0])
    if rows[:, 2].any() or steps.min() != steps.max() or steps[0] < 1:
        return None
    pts = stream.start_time + steps[0] * np.arange(len(rows))
    return FrameIndex(pts, np.flatnonzero(rows[:, 1]), seekable=True)


def _index_of_packets(
    container: InputContainer, stream: VideoStream, deadline: Deadline
) -> tuple[int, float, FrameIndex | None]:
    """Read all packets without decoding: number of frames, mean ticks of one, and the index.

    AVI has times of decoding only, so its frames can't be told by their timestamps.
    """
    count, stamps, keys = 0, [], []
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        count += 1
        if count % 1024 == 0:
            deadline.check()
        if packet.pts is not None:
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    if len(stamps) < 2:
        return count, 0.0, None
    pts = np.unique(np.array(stamps, np.int64))
    ticks = float(pts[-1] - pts[0]) / (len(stamps) - 1)
    formats = container.format.name
    if len(pts) != count or formats == "avi":
        return count, ticks, None
    seekable = "mp4" in formats or "matroska" in formats
    return count, ticks, FrameIndex(pts, np.searchsorted(pts, sorted(keys)), seekable)
