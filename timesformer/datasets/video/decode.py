"""From a video file to the few uint8 frames that make a clip.

One contract: these frames of this file, upright, numbered in the decoder's order. A file is opened
and decoded once for all clips that are wanted of it; where its index can be trusted and a later
frame is cheaper to reach by a seek, the way there is left out. Frames that no clip needs are never
converted to RGB, and no decoded frame is kept: an open frame can hold megabytes of scaler.

A file is read strictly first. What that doesn't survive is read again as players do, and then the
clips say so (`Clips.damage`): wrong pixels are never passed on in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from timesformer.clips.sampling import ClipPosition
from timesformer.datasets.video.file import (
    StreamInfo,
    check_size,
    open_video,
    read_info,
    typed_errors,
)
from timesformer.datasets.video.index import CUT_SHORT, Deadline, FrameIndex, starts_as_indexed
from timesformer.datasets.video.requests import Cut, Numbers, Request, request_for
from timesformer.datasets.video.shards import Member, VideoPath
from timesformer.utils.errors import VideoError

__all__ = ["Clips", "decode_all", "load_clips", "load_frames"]

TIMEOUT = 120.0  # seconds for one file
WORTH_A_SEEK = 3  # frames; decoding so many costs more than a seek

Place = Callable[[int, float], Sequence[ClipPosition]]  # (frames, fps) -> clips


@dataclass(frozen=True)
class Clips:
    """Clips of one video.

    Attributes:
        frames: for each clip uint8 RGB frames (T, H, W, 3), upright, or what was made of them.
        damage: what is wrong with the file although it could be read; "" if nothing is.
    """

    frames: list[torch.Tensor]
    damage: str = ""


def load_clips(
    path: str | os.PathLike[str] | Member,
    place: Place,
    timeout: float = TIMEOUT,
    cuts: Sequence[Cut] = (),
) -> Clips:
    """Read several clips of one video in a single pass.

    Args:
        path: a video file.
        place: told the number of frames and frames per second, says where the clips lie.
        timeout: seconds after which the file counts as broken.
        cuts: for each clip, what makes of a frame (H, W, 3) the tensor that is kept of it; none
            for the frames themselves.

    Raises:
        VideoError: the file can't be read.
    """
    positions: list[ClipPosition] = []

    def requests(info: StreamInfo) -> Sequence[Request]:
        # Asked once, however often the file has to be read: the answer may be random.
        positions[:] = positions or place(info.frames, info.fps)
        found = [request_for(info, position) for position in positions]
        for request, cut in zip(found, cuts, strict=False):
            request.cut = cut
        return found

    return _read(_as_it_is(path), requests, timeout)


def load_frames(
    path: str | os.PathLike[str] | Member, numbers: Sequence[int], timeout: float = TIMEOUT
) -> Clips:
    """Read these frames of a file, in ascending order, as one clip (N, H, W, 3).

    A number beyond the end gives the last frame.

    Raises:
        VideoError: the file can't be read.
    """
    wanted = sorted(numbers)
    if not wanted or wanted[0] < 0:
        raise ValueError(f"frame numbers are at least 0, and one at least: {wanted[:3]}")

    def requests(info: StreamInfo) -> Sequence[Request]:
        end = None if info.index is None else len(info.index.pts) - 1
        return [Numbers(wanted if end is None else [min(n, end) for n in wanted])]

    return _read(_as_it_is(path), requests, timeout)


def decode_all(
    path: str | os.PathLike[str] | Member, timeout: float = TIMEOUT
) -> Iterator[np.ndarray]:
    """Decode every frame in the decoder's order: upright uint8 RGB (H, W, 3).

    Raises:
        VideoError: the file can't be read, or not to its end.
    """
    name = _as_it_is(path)
    deadline, to_rgb = Deadline(name, timeout), Converter(name)
    with typed_errors(name), open_video(name) as (container, stream):
        for frame in container.decode(stream):
            deadline.check()
            yield to_rgb(frame)


def _as_it_is(path: str | os.PathLike[str] | Member) -> VideoPath:
    return path if isinstance(path, Member) else os.fspath(path)


class _Way(Enum):
    """How the decoder's frames are told apart; each way is tried where the one before fails."""

    SEEKS = "timestamps, with jumps to wanted frames"
    TIMES = "timestamps, from the start"
    COUNT = "counted from the start"


class _Lost(Exception):  # noqa: N818  (a signal rather than an error)
    """The index doesn't lead to the wanted frames in this way: read the file in the next one."""


class _Damaged(Exception):  # noqa: N818
    """Strict decoding met an error."""


def _read(
    path: VideoPath, plan: Callable[[StreamInfo], Sequence[Request]], timeout: float
) -> Clips:
    """Read a file with seeks and strictly; from its start if that fails; at last leniently."""
    deadline = Deadline(path, timeout)
    way, damage = _Way.SEEKS, ""
    with typed_errors(path):
        while True:
            try:
                return _attempt(path, plan, deadline, way, damage)
            except _Lost:
                way = _Way.TIMES if way is _Way.SEEKS else _Way.COUNT
            except _Damaged as error:
                damage = f"decoded in spite of errors ({error})"
                way = _Way.TIMES if way is _Way.SEEKS else way


def _attempt(
    path: VideoPath,
    plan: Callable[[StreamInfo], Sequence[Request]],
    deadline: Deadline,
    way: _Way,
    damage: str,
) -> Clips:
    with open_video(path, strict=not damage) as (container, stream):
        info, packets_read = read_info(path, container, stream, deadline)
        if not packets_read:
            return _decode(path, container, stream, info, plan, deadline, way, damage)
    with open_video(path, strict=not damage) as (container, stream):
        return _decode(path, container, stream, info, plan, deadline, way, damage)


def _decode(
    path: VideoPath,
    container: InputContainer,
    stream: VideoStream,
    info: StreamInfo,
    plan: Callable[[StreamInfo], Sequence[Request]],
    deadline: Deadline,
    way: _Way,
    damage: str,
) -> Clips:
    """Decode until every clip has its frames; convert only those."""
    strict = not damage
    info = replace(info, index=_usable(info.index, way))
    if info.index is not None and way is _Way.COUNT:
        damage = damage or "its frames don't have the times of its index, they were counted"
    requests, to_rgb = plan(info), Converter(path)
    frames = _frames(container, stream, info.index, requests, way, strict)
    number, last, damage = -1, None, damage or info.damage
    for number, frame in frames:
        deadline.check()
        last, pts = frame, info.pts(frame, number)
        counts = [request.wants(number, pts) if request.missing else 0 for request in requests]
        if any(counts):
            if frame.is_corrupt and not damage:
                damage = f"frame {number} is damaged"
            _hand_out(requests, counts, to_rgb(frame))
        if not any(request.missing for request in requests):
            return _clips(requests, damage)
    if info.index is not None and way is _Way.SEEKS:
        raise _Lost
    if last is None:
        raise VideoError(path, "no frame could be decoded")
    if number + 1 < CUT_SHORT * info.expected and not damage:
        damage = f"ends after {number + 1} of {info.expected} frames"
    # The video ends early: its last frame stands for those that aren't there.
    _hand_out(requests, [request.missing for request in requests], to_rgb(last))
    return _clips(requests, damage)


def _usable(index: FrameIndex | None, way: _Way) -> FrameIndex | None:
    """Return what is used of an index in this way.

    At a constant rate the published code's counting needs none. At a variable one nothing else
    tells which frames a clip shows: it's kept, whatever becomes of seeks and timestamps.
    """
    if index is None or way is _Way.SEEKS:
        return index
    if index.constant_rate and not index.gaps:
        return None
    return replace(index, seekable=False, counted=way is _Way.COUNT)


def _frames(
    container: InputContainer,
    stream: VideoStream,
    index: FrameIndex | None,
    requests: Sequence[Request],
    way: _Way,
    strict: bool,
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode frames with their numbers, leaving out what an index allows to jump over.

    Raises:
        _Lost: the decoder's frames aren't those of the index.
        _Damaged: an error in strict decoding.
    """
    number, sought, frames = -1, -1, container.decode(stream)
    while True:
        wanted = min(request.next_number for request in requests if request.missing)
        if index is not None and index.seekable:
            key = index.key_before(wanted)
            # Once for each key: with B-frames a seek may lead to an earlier one.
            if key > number + WORTH_A_SEEK and key != sought:
                if sought < 0 > number and not starts_as_indexed(container, stream, index):
                    raise _Lost
                container.seek(int(index.pts[key]), stream=stream)
                number, sought, frames = -1, key, container.decode(stream)
        try:
            frame = next(frames, None)
        except (av.FFmpegError, ValueError, IndexError, AttributeError) as error:
            if strict:
                raise _Damaged(type(error).__name__) from error
            raise
        if frame is None:
            return
        if index is None or index.counted:
            number += 1
        else:
            before, number = number, index.number(frame.pts)
            # A seek that leads further back than asked leads to a key, or the index is shifted.
            if before < 0 <= sought - WORTH_A_SEEK > number and not index.is_key(number):
                raise _Lost
            # From the start a wanted frame may be one that the decoder leaves out.
            if number <= before or (number > wanted and way is _Way.SEEKS):
                raise _Lost
        yield number, frame


def _hand_out(requests: Sequence[Request], counts: Sequence[int], image: np.ndarray) -> None:
    for request, count in zip(requests, counts, strict=True):
        request.take(image, count)


def _clips(requests: Sequence[Request], damage: str) -> Clips:
    return Clips([torch.stack(request.images) for request in requests], damage)


class Converter:
    """Converts frames to upright RGB, with one scaler for the whole video: each costs megabytes."""

    def __init__(self, path: VideoPath) -> None:
        self.path = path
        self.scaler = VideoReformatter()
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        size = (frame.width, frame.height)
        if self.size is None:
            check_size(self.path, *size)
            self.size = size
        elif size != self.size:
            was, now = ("x".join(map(str, s)) for s in (self.size, size))
            raise VideoError(self.path, f"the frame size changes from {was} to {now}")
        image = self.scaler.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.rot90(image, turns) if turns else image
