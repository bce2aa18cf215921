"""All frames of a file, one after the other, each decoded once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from timesformer.datasets.video.decode import Converter
from timesformer.datasets.video.file import StreamInfo, open_video, read_info, typed_errors
from timesformer.datasets.video.index import CUT_SHORT, Deadline
from timesformer.utils.errors import VideoError

DECODING = (av.FFmpegError, ValueError, IndexError, AttributeError)  # what damage raises


@dataclass(frozen=True)
class Decoded:
    """A frame as it comes from the decoder; nothing is converted until `image` is asked.

    Attributes:
        number: from 0; damage leaves numbers out.
        pts: when it is shown, in ticks.
        seconds: the same, counted from the first frame.
        image: makes the upright uint8 RGB frame (H, W, 3).
    """

    number: int
    pts: int
    seconds: float
    image: Callable[[], np.ndarray]


class _Damaged(Exception):  # noqa: N818  (a signal rather than an error)
    """Strict decoding met an error."""


class WholeVideo:
    """A file to be read from its start to its end.

    It is decoded strictly; from an error on as players do, without what can't be decoded.

    Attributes:
        path: the file.
        info: its clock.
        tick: seconds of a tick.
        damage: what is wrong with it, as far as it is read; "" if nothing is.
        decoded: frames that came from the decoder so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the file's clock and index, nothing of its frames.

        Raises:
            VideoError: it can't be read.
        """
        self.path = os.fspath(path)
        with typed_errors(self.path), open_video(self.path) as (container, stream):
            # No deadline: how long it takes depends on how long the video is.
            self.info: StreamInfo
            self.info, _ = read_info(self.path, container, stream, Deadline(self.path, math.inf))
            self.tick = float(stream.time_base or 0) or 1 / self.info.fps
        self.damage = self.info.damage
        self.decoded = 0

    @property
    def frame_seconds(self) -> float:
        """Mean duration of a frame."""
        return self.info.frame_ticks * self.tick

    @cached_property
    def last_seconds(self) -> float:
        """How long the last frame is shown: as long as most are, for gaps make the mean longer."""
        mean, index = self.frame_seconds, self.info.index
        if index is None or len(index.pts) < 2:
            return mean
        usual = float(np.median(np.diff(index.pts))) * self.tick
        return usual if mean > usual + self.tick else mean  # timestamps are rounded to a tick

    @property
    def duration(self) -> float:
        """Seconds, as the file says."""
        index = self.info.index
        if index is None or self.last_seconds == self.frame_seconds:
            return self.info.frames * self.frame_seconds
        return float(index.pts[-1] - index.pts[0]) * self.tick + self.last_seconds

    def __iter__(self) -> Iterator[Decoded]:
        """Yield the frames in the order in which they are shown.

        Raises:
            VideoError: not one can be decoded.
        """
        to_rgb, last = Converter(self.path), -1
        with typed_errors(self.path):
            for strict in (True, False):
                try:
                    for number, frame in self._pass(strict, last):
                        last = number
                        yield self._decoded(number, frame, to_rgb)
                    break
                except _Damaged as error:
                    self._say(f"decoded in spite of errors ({error})")
        if last < 0:
            raise VideoError(self.path, "no frame could be decoded")
        if last + 1 < CUT_SHORT * self.info.expected:
            self._say(f"ends after {last + 1} of {self.info.expected} frames")

    def _say(self, damage: str) -> None:
        """Keep what is wrong: the first thing, and where the file ends."""
        if not self.damage:
            self.damage = damage
        elif damage not in self.damage and "ends after" not in self.damage:
            self.damage = f"{self.damage}; {damage}"

    def _decoded(self, number: int, frame: VideoFrame, to_rgb: Converter) -> Decoded:
        if frame.is_corrupt and not self.damage:
            self._say(f"frame {number} is damaged")
        pts = self.info.pts(frame, number)

        def image() -> np.ndarray:
            with typed_errors(self.path):
                return to_rgb(frame)

        return Decoded(number, pts, (pts - self.info.first_pts) * self.tick, image)

    def _pass(self, strict: bool, done: int) -> Iterator[tuple[int, VideoFrame]]:
        """Decode the frames after frame `done`, with their numbers.

        Raises:
            _Damaged: an error in strict decoding.
        """
        with open_video(self.path, strict) as (container, stream):
            number, index = -1, self.info.index
            if index is not None and index.seekable and (key := index.key_before(done)) > 0:
                container.seek(int(index.pts[key]), stream=stream)
            counted = index is None or index.counted
            for frame in _frames(container, stream, strict):
                self.decoded += 1
                found = -1 if counted or index is None else index.number(frame.pts)
                if not counted and found <= number:
                    counted = True
                    if index is not None and (index.gaps or not index.constant_rate):
                        self._say("its frames don't have the times of its index, they were counted")
                number = number + 1 if counted else found
                if number > done:
                    yield number, frame


def _frames(container: InputContainer, stream: VideoStream, strict: bool) -> Iterator[VideoFrame]:
    """Decode packet by packet: when not strictly, without those that can't be."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except DECODING as error:
            if strict:
                raise _Damaged(type(error).__name__) from error
            return  # the file breaks off here
        if packet is None:
            return
        try:
            found = packet.decode()
        except DECODING as error:
            if strict:
                raise _Damaged(type(error).__name__) from error
            continue
        yield from found
