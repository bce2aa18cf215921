"""Cameras, streams and files at their own speed, read by a thread that never waits for a model."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from timesformer.datasets.video.decode import Converter
from timesformer.datasets.video.file import (
    ANY_TAGS,
    MAX_PIXELS,
    check_size,
    complete_rate,
    typed_errors,
)
from timesformer.datasets.video.whole import DECODING
from timesformer.inference.windows import Window, Windows
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import is_file
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted

logger = get_logger(__name__)

SCHEMES = (*("rtsp", "rtsps", "http", "https", "udp", "rtp", "tcp", "srt", "rtmp", "rtmps"),)
PROTOCOLS = "udp,rtp,rtsp,tcp,tls,http,https,httpproxy,hls,crypto,srt,rtmp,rtmps"
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a stream is opened again
SETTLES = 2.0  # seconds of a stream that are looked at for its format
UNKNOWN_RATE = 30.0  # frames/s of a camera that doesn't say its rate


@dataclass(frozen=True)
class Source:
    """Where live pictures come from.

    Attributes:
        word: as it was given.
        url: what is opened.
        format: of FFmpeg, where the URL doesn't tell.
        options: of FFmpeg.
        again: it is opened again when it ends or fails.
        paced: it is a file, which would come faster than it plays.
    """

    word: str
    url: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    again: bool = False
    paced: bool = False


def source_of(word: str) -> Source:
    """Return the source that a word means: a camera, a URL, a file, or "-" for stdin.

    Raises:
        UserError: there is no such thing.
    """
    if word == "-":
        return Source("stdin", "pipe:0")
    scheme = word.partition("://")[0].lower()
    if "://" in word:
        if scheme not in SCHEMES:
            raise UserError(f"{word:.200}: a URL begins with {', '.join(SCHEMES)}")
        options = {
            "protocol_whitelist": PROTOCOLS,  # a playlist mustn't reach files
            "analyzeduration": str(round(SETTLES * 1e6)),
        }
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        return Source(word, word, options=options, again=True)
    if word.isdecimal() and sys.platform == "darwin":
        return Source(word, word, "avfoundation", {"framerate": "30"}, again=True)
    camera = f"/dev/video{word}" if word.isdecimal() else word
    if camera.startswith("/dev/video"):
        if not os.path.exists(camera):  # noqa: PTH110  (a device)
            raise UserError(f"{camera}: there is no such camera")
        return Source(word, camera, "v4l2", again=True)
    if not is_file(word):
        raise UserError(f"{word}: there is no such file or camera; a URL begins with rtsp://, …")
    options = {"protocol_whitelist": "file"}
    return Source(word, f"file:{word}", options=options, paced=True)


@dataclass(frozen=True)
class Offer:
    """The newest window.

    Attributes:
        window: its frames and, in seconds since the stream was opened, its place.
        arrived: when its last frame was decoded (`time.monotonic`).
    """

    window: Window
    arrived: float


class Live:
    """Reads a source in a thread, and offers the newest window; older ones are dropped.

    Attributes:
        frames: that were decoded so far.
        windows: that were complete so far.
        dropped: windows that nobody took before a newer one was there.
        opened: how often the source was opened again.
    """

    def __init__(
        self,
        source: Source,
        make: Callable[[float, float, int], Windows],
        timeout: float,
        attempts: int,
    ) -> None:
        """Start to read.

        Args:
            source: what to read.
            make: told frames/s, seconds of a tick and the first frame's timestamp: the windows.
            timeout: seconds without a frame after which the source counts as failed.
            attempts: to open it again, one after the other, before it is given up.
        """
        self.source, self.timeout, self.attempts = source, timeout, attempts
        self.frames = self.windows = self.dropped = self.opened = 0
        self._make = make
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._offer: Offer | None = None
        self._error: BaseException | None = None
        self._over = False
        self._heard = time.monotonic()
        # A daemon: no read that never returns keeps the process from ending.
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> Offer | None:
        """Wait so long for the newest window; None if there was none.

        Raises:
            VideoError: the source failed, and won't be opened again.
        """
        with self._changed:
            if self._offer is None and not self._over:
                self._changed.wait(seconds)
            offer, self._offer = self._offer, None
            if offer is None and self._error is not None:
                raise self._error
            return offer

    @property
    def over(self) -> bool:
        """Whether no window will come any more.

        Raises:
            VideoError: the source failed; or one that can't be asked for a time limit says nothing
                any more.
        """
        with self._changed:
            if self._over or self._stop.is_set():
                if self._offer is None and self._error is not None:
                    raise self._error  # it may have come while nobody was waiting in `take`
                return self._offer is None
            # Reading a pipe can't be interrupted; others have failed by themselves before.
            if not self.source.again and time.monotonic() - self._heard > self.timeout + 1:
                raise VideoError(self.source.word, f"no frame for {self.timeout:g} s")
            return False

    def close(self) -> None:
        """Stop reading; a thread that waits for a silent source ends with the process."""
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._read_on()
        except BaseException as error:  # handed to whoever takes windows
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _read_on(self) -> None:
        """Read; open the source again when it ends or fails, after waits that grow."""
        failures = 0
        while not self._stop.is_set():
            before, reason = self.frames, "it ended"
            try:
                self._read_once()
            except VideoError as error:
                reason = error.reason
                if not self.frames or not self.source.again:
                    raise
            if self._stop.is_set():
                return
            if not self.source.again:
                if not self.windows:
                    count = counted(self.frames, "frame")
                    reason = f"it ended after {count}, before a clip was complete"
                    raise VideoError(self.source.word, reason)
                return
            failures = 1 if self.frames > before else failures + 1
            if failures > self.attempts:
                tried = (
                    f"; opened again {counted(self.attempts, 'time')} in vain"
                    if self.attempts
                    else ""
                )
                raise VideoError(self.source.word, reason + tried)
            wait = min(FIRST_WAIT * 2 ** (failures - 1), LONGEST_WAIT)
            logger.warning("%s: %s; opened again in %g s", self.source.word, reason, wait)
            self._stop.wait(wait)
            self.opened += 1

    def _read_once(self) -> None:
        """Open the source and read it to its end.

        Raises:
            VideoError: it can't be opened, or fails.
        """
        word = self.source.word
        with self._in_words():
            options: dict[str, Any] = {"options": self.source.options, **ANY_TAGS}
            # Both are limits of waiting: for the source to answer, and for each packet.
            limits = (self.timeout, self.timeout)
            opened = av.open(self.source.url, format=self.source.format, timeout=limits, **options)
            with closing(opened) as container:
                if not container.streams.video:
                    raise VideoError(word, "no video stream")
                stream = container.streams.video[0]
                context = stream.codec_context
                if context is None:
                    raise VideoError(word, "no decoder for its video stream")
                check_size(word, context.width, context.height)
                context.options = {"max_pixels": str(MAX_PIXELS)}
                context.thread_count = 1  # several would hold frames back
                self._frames(container, stream)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say what FFmpeg's errors mean of a source that isn't a file.

        Raises:
            VideoError: for whatever is raised.
        """
        word = self.source.word
        with typed_errors(word):
            try:
                yield
            except av.error.ExitError as error:  # the limit of waiting
                raise VideoError(word, f"nothing came for {self.timeout:g} s") from error
            except av.error.InvalidDataError as error:
                if self.source.url != "pipe:0":
                    raise
                reason = "not a video that can be read as it comes (an .mp4 often can't): try .ts"
                raise VideoError(word, reason) from error

    def _frames(self, container: InputContainer, stream: VideoStream) -> None:
        """Feed windows with the frames of a source, at the pace of a file if it is one."""
        tick = float(stream.time_base or 0) or 1 / UNKNOWN_RATE
        said = float(stream.average_rate or stream.guessed_rate or UNKNOWN_RATE)
        fps, ticks = complete_rate(self.source.word, said, 0.0, tick)
        to_rgb, windows, number = Converter(self.source.word), None, 0
        first = last = 0
        begun = time.monotonic()
        for packet in container.demux(stream):
            try:
                found = packet.decode()
            except DECODING:  # a packet was lost on its way: go on, as players do
                continue
            for frame in found:
                if self._stop.is_set():
                    return
                pts = last + round(ticks) if frame.pts is None else frame.pts
                # After a jump of the clock nothing that came before is near in time.
                if windows is None or not 0 <= (pts - last) * tick <= self.timeout:
                    windows, number, first = self._make(fps, tick, pts), 0, pts
                    begun = time.monotonic()
                last = pts
                if self.source.paced:
                    self._stop.wait(max(0.0, begun + (pts - first) * tick - time.monotonic()))
                self._heard = time.monotonic()
                self.frames += 1
                for window in windows.feed(number, pts, lambda f=frame: to_rgb(f)):  # type: ignore[misc]
                    self._put(Offer(window, self._heard))
                number += 1

    def _put(self, offer: Offer) -> None:
        with self._changed:
            self.windows += 1
            self.dropped += self._offer is not None
            self._offer = offer
            self._changed.notify_all()
