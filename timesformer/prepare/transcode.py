"""One video into one that loads fast: small, upright H.264 with a keyframe every few frames.

Frame i of the result is frame i of the source in the decoder's order, at the same time, and a mean
frame lasts as long, so the frames of a clip have the same numbers in both. What makes it fast: few
pixels; a keyframe at most `gop` frames before any frame, so a reader seeks instead of decoding from
the start; one reference and no B-frames; no CABAC and no loop filter (x264's "fastdecode"); an
index at the front.
"""

from __future__ import annotations

import heapq
import math
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from timesformer.datasets.lists.records import Images
from timesformer.datasets.video.file import (
    PLAUSIBLE_FPS,
    StreamInfo,
    check_size,
    open_video,
    read_info,
    typed_errors,
)
from timesformer.datasets.video.frame_folder import image_of, list_frames, read_image
from timesformer.datasets.video.index import CUT_SHORT, Deadline
from timesformer.datasets.video.shards import MemberFolder
from timesformer.utils.errors import DISK_ERRORS, UserError, VideoError
from timesformer.utils.files import written_whole

SUFFIX = ".mp4"
REORDERED = 32  # timestamps held back to sort them; H.264 reorders 16 frames at most
FINE = 90_000  # units of a second, where the rate varies
FRAME_TICKS = 512  # of the clock of extracted frames: a clip may start between two
PATIENCE = 3600.0  # seconds to count the packets of a file without a header
MATRICES = {1, 4, 5, 6, 7, 9}  # colour matrices to keep, by FFmpeg's numbers; others become 601
Frames = Iterator[tuple[int, VideoFrame]]  # (timestamp, frame) in the decoder's order


@dataclass(frozen=True)
class TranscodeSettings:
    """How videos are prepared.

    Attributes:
        short_side: of the result in pixels; smaller videos keep their size.
        gop: frames from one keyframe to the next.
        crf: quality of x264: 0 lossless, 18 looks the same, 51 worst.
        frames_fps: rate of videos that are folders of extracted frames.

    Raises:
        UserError: for a value that can't be, with the option to change.
    """

    short_side: int = 256
    gop: int = 8
    crf: int = 18
    frames_fps: float = 30.0

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.short_side % 2:
            raise UserError(f"--short-side {self.short_side}: must be even and 2 or more")
        if self.gop < 1:
            raise UserError(f"--gop {self.gop}: must be 1 or more")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf {self.crf}: must be 0 to 51")

    @property
    def x264_options(self) -> dict[str, str]:
        """Options of the encoder."""
        structure = f"keyint={self.gop}:scenecut=0:open-gop=0:bframes=0:ref=1"
        options = {"preset": "fast", "tune": "fastdecode", "x264-params": structure}
        return options | {"crf": str(self.crf)}


class _Clock(NamedTuple):
    """Times of a source.

    Attributes:
        tick: seconds of a timestamp unit.
        fps: frames per second.
        expected: least number of frames of a source that isn't cut short.
        mean: units that a frame lasts in the mean where the rate varies, as samplers count them; 0
            where it doesn't.
    """

    tick: Fraction
    fps: Fraction
    expected: int = 0
    mean: float = 0.0


def transcode(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    settings: TranscodeSettings,
    images: Images | None = None,
) -> int:
    """Prepare a video, or a folder of extracted frames, as `target`, an `.mp4`.

    The folder of `target` must exist; `target` itself appears only when it is complete.

    `images` are those of a folder that are meant; None for all.

    Damage that training would put up with is an error: in the result, it couldn't be told.

    Returns:
        Number of frames.

    Raises:
        VideoError: the source can't be read to its end, or not be encoded.
        UserError: the target can't be written, as no other could.
    """
    name, target = os.fspath(source), Path(target)
    folder = Path(name).is_dir()
    clock, frames = _open_folder(name, settings, images) if folder else _open_file(name)
    try:
        with written_whole(target) as partial:
            count = _write(partial, name, clock, frames, settings)
            with partial.open("r+b") as file:  # Windows syncs what may be written only
                os.fsync(file.fileno())
    except VideoError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in DISK_ERRORS:
            raise UserError(f"{target}: can't be written: {os.strerror(number)}") from error
        raise VideoError(name, f"can't be encoded ({type(error).__name__}: {error})") from error
    return count


def prepared_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Shrink (width, height) to this short side, never enlarge; both become even."""
    scale = min(1.0, short_side / min(width, height))
    pairs = (max(1, math.ceil(side * scale / 2 - 0.5)) for side in (width, height))
    width, height = (2 * pair for pair in pairs)
    return width, height


def _open_file(path: str) -> tuple[_Clock, Frames]:
    with typed_errors(path), open_video(path) as (container, stream):
        info, _ = read_info(path, container, stream, Deadline(path, PATIENCE))
        if info.damage:
            raise VideoError(path, info.damage)
        fps = Fraction(stream.average_rate or 0)  # PyAV has rationals of its own
        if not PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1]:
            fps = Fraction(info.fps).limit_denominator(1001)
        tick, expected = Fraction(stream.time_base or 1 / fps), int(CUT_SHORT * info.expected)
        if info.index is None or info.index.constant_rate:
            return _Clock(tick, fps, expected), _decode(path, info)
        # The last frame makes the mean that of the source, so its end needs a fine clock.
        finer = max(1, FINE // tick.denominator)
        clock = _Clock(tick / finer, fps, expected, info.frame_ticks * finer)
    return clock, ((pts * finer, frame) for pts, frame in _decode(path, info))


def _decode(path: str, info: StreamInfo) -> Frames:
    with typed_errors(path), open_video(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt:
                raise VideoError(path, f"frame {number} is damaged")
            yield _time_of(frame, number, info), frame


def _time_of(frame: VideoFrame, number: int, info: StreamInfo) -> int:
    """Return the timestamp by which clips choose a frame."""
    index = info.index
    if index is not None and index.counted:  # the decoder's may be those of other packets
        return int(index.pts[min(number, len(index.pts) - 1)])
    return info.pts(frame, number)


def _open_folder(
    path: str, settings: TranscodeSettings, images: Images | None
) -> tuple[_Clock, Frames]:
    fps = Fraction(settings.frames_fps).limit_denominator(1001)
    found = read_folder(path, images)
    made = (VideoFrame.from_ndarray(image, format="rgb24") for image in found)
    frames = ((i * FRAME_TICKS, image) for i, image in enumerate(made))
    return _Clock(1 / (fps * FRAME_TICKS), fps), frames


def read_folder(folder: str | MemberFolder, images: Images | None = None) -> Iterator[np.ndarray]:
    """Yield every image of a folder of frames, or those that are meant: uint8 RGB (H, W, 3).

    Raises:
        VideoError: the folder hasn't these frames, or one of them can't be read.
    """
    shape: tuple[int, ...] = ()
    for name in list_frames(folder, images):
        image = np.ascontiguousarray(read_image(image_of(folder, name)))
        if shape not in ((), image.shape):
            raise VideoError(folder, "its frames differ in size")
        shape = image.shape
        yield image


def _write(
    partial: Path, path: str, clock: _Clock, frames: Frames, settings: TranscodeSettings
) -> int:
    scale = str(clock.tick.denominator)
    # Without its own scale, an edit list would round the first timestamp to milliseconds.
    scales = {"video_track_timescale": scale, "movie_timescale": scale}
    options = {"movflags": "+faststart", "fflags": "+bitexact", **scales}
    with av.open(f"file:{partial}", "w", format="mp4", options=options) as container:
        encoder: _Encoder | None = None
        for pts, frame in frames:
            if encoder is None:
                check_size(path, frame.width, frame.height)
                encoder = _Encoder(container, path, clock, settings, frame)
            encoder.add(pts, frame)
        if encoder is None:
            raise VideoError(path, "no frame could be decoded")
        if encoder.count < clock.expected:
            raise VideoError(path, f"ends after {encoder.count} frames, before its header says")
        encoder.finish()
    return encoder.count


class _Encoder:
    """Takes frames as they are decoded, and writes them small and upright.

    The encoder counts frames. Their timestamps bypass it, because it would change some of those
    that don't ascend: AVI has the times of B-frames in the wrong order. They are sorted instead.
    """

    def __init__(
        self, container: OutputContainer, path: str, clock: _Clock, settings: TranscodeSettings,
        first: VideoFrame,
    ) -> None:  # fmt: skip
        self.container, self.path, self.clock = container, path, clock
        self.count = 0
        self._source_size = (first.width, first.height)
        self._size = prepared_size(*self._source_size, settings.short_side)
        self._turns = round(first.rotation / 90) % 4  # to the left
        known = first.colorspace in MATRICES
        self._matrix = int(first.colorspace if known else Colorspace.ITU601)
        self._scaler = VideoReformatter()  # one for the whole video: each costs megabytes
        self._packets: deque[Packet] = deque()
        self._stamps: list[int] = []  # a heap: those of frames whose packets aren't written
        self._first_stamp: int | None = None
        self._last_stamp = -1
        options = settings.x264_options
        self._stream = container.add_stream("libx264", rate=clock.fps, options=options)
        picture = self._prepare(first)
        self._stream.width, self._stream.height = picture.width, picture.height
        self._stream.pix_fmt, self._stream.thread_count = "yuv420p", 1
        context = self._stream.codec_context
        context.colorspace, context.color_range = picture.colorspace, picture.color_range

    def add(self, pts: int, frame: VideoFrame) -> None:
        """Write a frame, or keep it until later ones have come."""
        size = (frame.width, frame.height)
        if size != self._source_size:
            was, now = ("x".join(map(str, s)) for s in (self._source_size, size))
            raise VideoError(self.path, f"the frame size changes from {was} to {now}")
        picture = self._prepare(frame)
        picture.pts, picture.time_base = self.count, 1 / self.clock.fps
        picture.pict_type = PictureType.NONE  # the source's keyframes mean nothing here
        self.count += 1
        heapq.heappush(self._stamps, pts)
        self._packets.extend(self._stream.encode(picture))
        while self._packets and len(self._stamps) > REORDERED:
            self._mux_next()

    def finish(self) -> None:
        """Write what is left."""
        self._packets.extend(self._stream.encode())
        if len(self._packets) != len(self._stamps):
            raise VideoError(self.path, "can't be encoded (frames got lost)")
        while self._packets:
            self._mux_next()

    def _prepare(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame at its new size, upright, in limited range."""
        small = self._scaler.reformat(
            frame,
            *(*self._size, "yuv420p"),
            dst_colorspace=self._matrix,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.LANCZOS,
            threads=1,
        )
        return _turn(small, self._turns) if self._turns else small

    def _mux_next(self) -> None:
        """Write the next packet at the lowest timestamp."""
        packet, stamp = self._packets.popleft(), heapq.heappop(self._stamps)
        if self._first_stamp is None:
            self._first_stamp = stamp
        # An mp4 doesn't start before 0, and no two frames are at the same time.
        stamp = max(stamp - min(self._first_stamp, 0), self._last_stamp + 1)
        self._last_stamp = stamp
        tick, frame = self.clock.tick, 1 / (self.clock.fps * self.clock.tick)
        duration = 1  # up to the next frame
        if not self._packets and self.clock.mean:
            exact = max(self._first_stamp, 0) + self.count * self.clock.mean - stamp
            duration = max(1, math.ceil(exact - 1e-6))  # or a hair more, as below
        elif not self._packets:
            # The mean rate becomes the source's, or a hair more: less could, where samplers round
            # down, choose other frames.
            end = max(self._first_stamp, 0) + self.count * frame
            duration = max(1, int(min(end - stamp, 2 * frame)))
        packet.time_base = Fraction(1, tick.denominator)
        packet.pts = packet.dts = stamp * tick.numerator
        packet.duration = duration * tick.numerator
        self.container.mux(packet)


def _turn(frame: VideoFrame, turns: int) -> VideoFrame:
    """Turn a yuv420p frame to the left by `turns` × 90°."""
    width, height, pixels = frame.width, frame.height, frame.width * frame.height
    flat = frame.to_ndarray().ravel()
    chroma = flat[pixels:].reshape(2, height // 2, width // 2)
    planes = [np.rot90(p, turns).ravel() for p in (flat[:pixels].reshape(height, width), *chroma)]
    upright = (-1, height if turns % 2 else width)
    turned = VideoFrame.from_ndarray(np.concatenate(planes).reshape(upright), format="yuv420p")
    turned.colorspace, turned.color_range = frame.colorspace, frame.color_range
    return turned
