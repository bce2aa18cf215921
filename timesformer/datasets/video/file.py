"""Video files as they are found: opening them safely, their clock, and where their frames lie.

Everything a file can provoke here ends as a `VideoError`. Times are timestamps (pts) in the time
base of the stream; frames are numbered in the order in which the decoder puts them out.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from timesformer.datasets.video.index import (
    Deadline,
    FrameIndex,
    index_of_avi,
    index_of_header,
    missing_part,
    read_packets,
)
from timesformer.datasets.video.shards import Member, VideoPath
from timesformer.utils.errors import VideoError
from timesformer.utils.files import require_regular

MAX_PIXELS = 8192 * 4320  # a header that asks for more is damaged, or an attack on memory
MAX_ASPECT = 40  # a longer strip would be resized to gigabytes
PLAUSIBLE_FPS = (1.0, 240.0)  # webm files without a rate report 1000
# Tags in another encoding than UTF-8 are no fault of a video; PyAV 19 and later take them anyway.
ANY_TAGS: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
)
STRICT = "crccheck+bitstream+buffer+explode"  # FFmpeg's err_detect: report what it would conceal


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
def typed_errors(path: VideoPath) -> Iterator[None]:
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
        # FFmpeg's own numbers are beyond the system's, so the same ones mean the same.
        raise VideoError.of_system(path, error, "can't be read") from error
    except OSError as error:
        raise VideoError.of_system(path, error, "can't be read") from error
    except MemoryError as error:
        raise VideoError(path, "its frames don't fit into memory") from error
    except Exception as error:
        raise VideoError(path, f"can't be read ({type(error).__name__}: {error})") from error


@contextmanager
def open_video(
    path: VideoPath, strict: bool = True
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream of a file, single-threaded.

    Args:
        path: a video file.
        strict: decoding raises where it would otherwise conceal an error.
    """
    with _of_shard(path) if isinstance(path, Member) else _of_disk(path) as container:
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


def _of_disk(path: str) -> InputContainer:
    if "\0" in path:
        raise VideoError(path.replace("\0", "\\0"), "the path has a NUL character")
    require_regular(path)  # FFmpeg waits for a FIFO, and no timeout reaches it there
    # "file:" and the whitelist keep odd names and playlists from reaching other protocols.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, **ANY_TAGS)


@contextmanager
def _of_shard(member: Member) -> Iterator[InputContainer]:
    with member.open() as file:
        try:
            # A playlist must not lead out of the shards: there is no protocol "none".
            options = {"protocol_whitelist": "none"}
            with av.open(file, options=options, **ANY_TAGS) as container:
                yield container
        finally:
            # FFmpeg may take a read that failed for the end of the file, and so would we.
            if file.failed is not None:
                raise file.failed


def check_size(path: VideoPath, width: int, height: int) -> None:
    """Refuse frames that no video has, before memory is spent on them.

    Raises:
        VideoError: they are too large or too long.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(path, f"frames of {width}x{height} are too large")
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise VideoError(path, f"frames of {width}x{height} are no picture but a strip")


def read_info(
    path: VideoPath, container: InputContainer, stream: VideoStream, deadline: Deadline
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
    index, settled, damage = None, False, ""
    if container.format.name == "avi":
        index, settled = index_of_avi(stream)
    else:
        index = index_of_header(container, stream)
    frames = stream.frames
    ticks = (stream.duration or 0) / frames if frames > 0 else 0.0
    by_packets = index is None and not (settled and ticks)
    if by_packets:
        packets = read_packets(container, stream, deadline)
        index, damage = packets.index, missing_part(container, stream, packets)
        if frames < 1 or not ticks:
            frames, ticks = packets.count, packets.ticks
    if index is not None and index.gaps:
        frames = len(index.pts)
        ticks = float(index.pts[-1] - index.pts[0]) / (frames - 1)
    if frames < 1:
        raise VideoError(path, "the video stream is empty")
    info = _make_info(path, stream, frames, ticks, index, damage)
    if by_packets:  # the header is quick to read again, the packets aren't
        _remember(key, info)
    return info, by_packets


# Infos of files whose packets had to be read, the one used last at the end.
_cache: OrderedDict[tuple[str, int, int], StreamInfo] = OrderedDict()
CACHED_FRAMES = 2_000_000  # about 16 MB of timestamps in each worker


def _file_key(path: VideoPath) -> tuple[str, int, int]:
    if isinstance(path, Member):
        return path.key
    status = os.stat(path)  # noqa: PTH116
    return path, status.st_size, status.st_mtime_ns


def _remember(key: tuple[str, int, int], info: StreamInfo) -> None:
    _cache[key] = info
    total = sum(info.frames for info in _cache.values())
    while total > CACHED_FRAMES and len(_cache) > 1:
        total -= _cache.popitem(last=False)[1].frames


def _make_info(
    path: VideoPath,
    stream: VideoStream,
    frames: int,
    ticks: float,
    index: FrameIndex | None,
    damage: str,
) -> StreamInfo:
    """Fill in what is missing: the rate from the timestamps, or the other way round."""
    tick = float(stream.time_base) if stream.time_base else 0.0
    gaps = index is not None and index.gaps
    varies = index is not None and (gaps or not index.constant_rate)
    rate = 0.0 if varies else float(stream.average_rate or 0)  # a nominal one says nothing then
    fps, ticks = complete_rate(path, rate, ticks, tick)
    return StreamInfo(
        frames=frames,
        fps=fps,
        first_pts=int(index.pts[0]) if index is not None and gaps else stream.start_time or 0,
        frame_ticks=ticks,
        expected=frames if gaps else max(stream.frames, frames),
        index=index,
        damage=damage,
    )


def complete_rate(path: VideoPath, fps: float, ticks: float, tick: float) -> tuple[float, float]:
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
