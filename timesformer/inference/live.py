"""Cameras, streams and files at their own speed, read by a thread that never waits for a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
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
from timesformer.datasets.video.whole import DECODING, WholeVideo
from timesformer.inference.source import Source
from timesformer.inference.windows import Window, Windows
from timesformer.utils.errors import VideoError
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted

logger = get_logger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a stream is opened again
UNKNOWN_RATE = 30.0  # frames/s of a camera that doesn't say its rate


@dataclass(frozen=True)
class Offer:
    """The newest window.

    Attributes:
        window: its frames and, in seconds since the stream was opened, its place.
        arrived: when its last frame was decoded (`time.monotonic`).
    """

    window: Window
    arrived: float


@dataclass
class _Clock:
    """Of a source that was just opened; times are timestamps.

    Attributes:
        fps: frames per second.
        tick: seconds of a tick.
        windows: in the making, since the clock last jumped.
        number: of the next frame, since then.
        first: when the first frame since then is shown.
        last: when the one before is.
        begun: when that first one came (`time.monotonic`).
    """

    fps: float
    tick: float
    windows: Windows | None = None
    number: int = 0
    first: int = 0
    last: int = 0
    begun: float = 0.0


class Live:
    """Reads a source in a thread, and offers the newest window; older ones are dropped.

    Attributes:
        frames: that were decoded so far.
        windows: that were complete so far.
        dropped: windows that nobody took before a newer one was there.
        opened: how often the source was opened again.
        damage: what is wrong with a file, as far as it is read; "" if nothing is, or of others.
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
        self.damage = ""
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
        if self.source.paced:
            self._read_file()
            return
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

    def _read_file(self) -> None:
        """Read a file as others do that are asked about it, and keep what is wrong with it."""
        video = WholeVideo(self.source.word)
        clock = _Clock(video.info.fps, video.tick)
        for frame in video:
            if self._stop.is_set():
                return
            self.damage = video.damage
            self._show(clock, frame.pts, frame.image)
        self.damage = video.damage

    def _frames(self, container: InputContainer, stream: VideoStream) -> None:
        """Feed windows with the frames of a source."""
        tick = float(stream.time_base or 0) or 1 / UNKNOWN_RATE
        said = float(stream.average_rate or stream.guessed_rate or UNKNOWN_RATE)
        fps, ticks = complete_rate(self.source.word, said, 0.0, tick)
        to_rgb, clock = Converter(self.source.word), _Clock(fps, tick)
        for packet in container.demux(stream):
            try:
                found = packet.decode()
            except DECODING:  # a packet was lost on its way: go on, as players do
                continue
            for frame in found:
                if self._stop.is_set():
                    return
                pts = clock.last + round(ticks) if frame.pts is None else frame.pts
                self._show(clock, pts, lambda f=frame: to_rgb(f))  # type: ignore[misc]

    def _show(self, clock: _Clock, pts: int, image: Callable[[], np.ndarray]) -> None:
        """Feed windows with a frame, at the pace of a file if it is one."""
        # After a jump of the clock nothing that came before is near in time.
        if clock.windows is None or not 0 <= (pts - clock.last) * clock.tick <= self.timeout:
            clock.windows = self._make(clock.fps, clock.tick, pts)
            clock.number, clock.first, clock.begun = 0, pts, time.monotonic()
        clock.last = pts
        if self.source.paced:
            due = clock.begun + (pts - clock.first) * clock.tick
            self._stop.wait(max(0.0, due - time.monotonic()))
        self._heard = time.monotonic()
        self.frames += 1
        for window in clock.windows.feed(clock.number, pts, image):
            self._put(Offer(window, self._heard))
        clock.number += 1

    def _put(self, offer: Offer) -> None:
        with self._changed:
            self.windows += 1
            self.dropped += self._offer is not None
            self._offer = offer
            self._changed.notify_all()
