"""Where the frames of a file lie: an index of them from its header, or else from its packets."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from timesformer.utils.errors import VideoError

CUT_SHORT = 0.95  # a file with a smaller share of what it promises is damaged
HOLE = 256  # bytes between packets; those of a container's own are fewer
REORDER_DEPTH = 32  # packets after which the first frame in time must have come


class Deadline:
    """A limit to the time spent on one file."""

    def __init__(self, path: object, seconds: float) -> None:
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
        counted: what the decoder puts out is told by counting, not by its timestamps.
        gaps: of an AVI with dropped frames, so that its header counts others than these.
    """

    pts: np.ndarray
    keys: np.ndarray
    seekable: bool
    counted: bool = False
    gaps: bool = False

    @cached_property
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

    def is_key(self, number: int) -> bool:
        """Whether decoding can start from this frame."""
        return self.key_before(number) == number

    def key_before(self, number: int) -> int:
        """Return the last frame up to this one that decoding can start from, or 0."""
        place = int(np.searchsorted(self.keys, number, side="right"))
        return int(self.keys[place - 1]) if place else 0


def index_of_header(container: InputContainer, stream: VideoStream) -> FrameIndex | None:
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


def index_of_avi(stream: VideoStream) -> tuple[FrameIndex | None, bool]:
    """Index of an AVI with dropped frames, by the one at its end; and whether that reaches so far.

    It doesn't after an interrupted recording, where it leaves out what was dropped, and where the
    video ends in dropped frames: then only the packets tell.
    """
    entries = getattr(stream, "index_entries", None) or ()  # PyAV from 16 on
    rows = [(e.timestamp, e.is_keyframe) for e in entries if e.size]
    # A chunk more or less is no reason to read all packets.
    if len(rows) < 2 or rows[-1][0] + 1 < stream.frames - 1:
        return None, False
    return _index_of_gaps(rows), True


def _index_of_gaps(rows: Sequence[tuple[int, bool]]) -> FrameIndex | None:
    """Index of an AVI's frames of (time, keyframe); None if its header's clock tells as much.

    A chunk without content stands for a frame that was dropped, of which the decoder knows nothing.
    The times are those of decoding: right without B-frames, else up to their delay too early.
    """
    table = np.array(rows, np.int64).reshape(-1, 2)
    times = table[:, 0]
    if (
        len(times) < 2
        or np.diff(times).min() < 1
        or np.abs(times - np.arange(len(times))).max() < 2
    ):
        return None
    keys = np.flatnonzero(table[:, 1])
    return FrameIndex(times, keys, seekable=False, counted=True, gaps=True)


@dataclass(frozen=True)
class Packets:
    """What all packets of a file say.

    Attributes:
        count: frames.
        ticks: mean duration of a frame; 0 without timestamps.
        index: where the frames lie; None if the timestamps can't be trusted.
        video_end: seconds at which the last frame ends.
        end: seconds at which the last packet of any stream ends.
        lost: seconds of video missing where bytes of the file belong to no packet.
        cut_at: chunks up to the last frame of an AVI that was cut: its index, at the end of the
            file, lists fewer frames than there are. None for others.
    """

    count: int
    ticks: float
    index: FrameIndex | None
    video_end: float
    end: float
    lost: float = 0.0
    cut_at: int | None = None


def read_packets(container: InputContainer, stream: VideoStream, deadline: Deadline) -> Packets:
    """Read all packets without decoding.

    AVI has times of decoding only, so its frames can't be told by their timestamps. These times do
    say which chunks had content.
    """
    formats = container.format.name
    entries = getattr(stream, "index_entries", None)
    listed = None if entries is None else len(entries)  # reading adds to them
    decoded: list[tuple[int, bool]] = []
    count, end, read_to = 0, 0.0, 0
    stamps: list[int] = []
    keys: list[int] = []
    holes: list[int] = []  # a damaged Matroska file loses packets and says nothing
    for packet in container.demux():
        if packet.size and packet.pos is not None:
            if packet.pos > read_to + HOLE:
                holes.append(len(stamps))
            read_to = max(read_to, packet.pos) + packet.size
        if packet.pts is not None and packet.time_base:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index or packet.size == 0 or packet.is_discard:
            continue
        count += 1
        if count % 1024 == 0:
            deadline.check()
        if packet.dts is not None:
            decoded.append((packet.dts, packet.is_keyframe))
        if packet.pts is not None:
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    index, cut_at = None, None
    if formats == "avi" and len(decoded) == count > 0:
        index = _index_of_gaps(decoded)
        cut_at = decoded[-1][0] + 1 if listed is not None and listed < count else None
    if len(stamps) < 2:
        return Packets(count, 0.0, index, 0.0, 0.0, cut_at=cut_at)
    pts = np.unique(np.array(stamps, np.int64))
    ticks = float(pts[-1] - pts[0]) / (len(stamps) - 1)
    video_end = (float(pts[-1]) + ticks) * float(stream.time_base or 0)
    if len(pts) == count and formats != "avi":
        seekable = "mp4" in formats or "matroska" in formats
        index = FrameIndex(pts, np.searchsorted(pts, sorted(keys)), seekable)
    tick = float(stream.time_base or 0)
    lost = _longest_gap(np.array(stamps, np.int64), holes) * tick if "matroska" in formats else 0.0
    return Packets(count, ticks, index, video_end, max(end, video_end), lost, cut_at)


def _longest_gap(stamps: np.ndarray, holes: Sequence[int]) -> float:
    """Longest time without a frame, in ticks, between packets [0, k) and [k, …) of any hole k."""
    places = [k for k in holes if 0 < k < len(stamps)]
    if not places:
        return 0.0
    before = np.maximum.accumulate(stamps)[np.array(places) - 1]
    after = np.minimum.accumulate(stamps[::-1])[::-1][places]
    step = float(np.median(np.diff(np.sort(stamps))))
    longest = float((after - before).max())
    return longest if longest > 2 * step else 0.0


def missing_part(container: InputContainer, stream: VideoStream, packets: Packets) -> str:
    """Say what is missing of a file that lost packets or ends too early; "" for nothing.

    Matroska files say it of each stream. A whole file may be as long as its sound is.
    """
    if packets.lost:
        return f"{packets.lost:.3g} s of it are missing"
    if packets.cut_at is not None and packets.cut_at < CUT_SHORT * stream.frames:
        return f"ends after {packets.cut_at} of {stream.frames} frames"
    if not any(name in container.format.name for name in ("matroska", "mp4", "flv", "asf")):
        return ""  # for other files FFmpeg estimates the duration
    ends = [(packets.end, (container.duration or 0) / av.time_base)]
    text = stream.metadata.get("DURATION", "")
    if re.fullmatch(r"\d+:\d+:\d+(\.\d+)?", text):
        hours, minutes, seconds = map(float, text.split(":"))
        ends.insert(0, (packets.video_end, 3600 * hours + 60 * minutes + seconds))
    for end, promised in ends:
        if 0 < end < CUT_SHORT * promised:
            return f"ends after {end:.3g} of {promised:.3g} s"
    return ""


def starts_as_indexed(container: InputContainer, stream: VideoStream, index: FrameIndex) -> bool:
    """Whether the first frame has the timestamp of the index; reads packets."""
    first = [p.pts for p in islice(container.demux(stream), REORDER_DEPTH) if p.size]
    return (
        None not in first
        and bool(first)
        and min(p for p in first if p is not None) == int(index.pts[0])
    )
