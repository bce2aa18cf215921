"""What a model says of live pictures, as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from timesformer.inference.live import Live
from timesformer.inference.prediction import TOPK, Prediction
from timesformer.inference.predictor import Predictor
from timesformer.inference.source import Source
from timesformer.inference.timeline import testing_of
from timesformer.inference.windows import Windows, moments_of, places_from, span_of
from timesformer.utils.errors import UserError

EVERY = 0.5  # seconds from one window to the next
TIMEOUT = 10.0  # seconds without a frame
RECONNECT = 5  # attempts in a row
POLL = 0.2  # seconds after which a signal to stop is noticed at the latest


@dataclass(frozen=True)
class Seen:
    """What a model says of the newest window.

    Attributes:
        start: of the window, in seconds since the source was opened, or opened again.
        end: likewise.
        at: the time of day when it was said.
        prediction: of the window.
        latency: seconds from the window's last frame, decoded, to its prediction.
        fps: frames per second that were decoded since the line before.
        dropped: windows, so far, that a newer one replaced before the model came to them.
    """

    start: float
    end: float
    at: datetime
    prediction: Prediction
    latency: float
    fps: float
    dropped: int

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "at": self.at.isoformat(timespec="milliseconds"),
            "topk": [guess._asdict() for guess in self.prediction.top],
            "latency": round(self.latency, 4),
            "fps": round(self.fps, 2),
            "dropped": self.dropped,
            "damage": self.prediction.damage,
        }


@dataclass
class Summary:
    """What was seen in all.

    Attributes:
        predictions: windows that the model has seen.
        frames: that were decoded.
        dropped: windows that were dropped.
        opened: how often the source was opened again.
        seconds: from the first to the last.
        latency: mean of the predictions, in seconds.
        longest: the longest of them.
        damage: what is wrong with a file, as far as it was read; "" if nothing is, or of others.
    """

    predictions: int = 0
    frames: int = 0
    dropped: int = 0
    opened: int = 0
    seconds: float = 0.0
    latency: float = 0.0
    longest: float = 0.0
    damage: str = ""


class Watch:
    """Predicts the newest window of a source, again and again, until it ends or is stopped.

    Attributes:
        summary: what was seen so far.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        *,
        every: float | None = None,
        every_frames: int | None = None,
        window: float | None = None,
        num_crops: int = 1,
        multi_label: bool | None = None,
        topk: int = TOPK,
        timeout: float = TIMEOUT,
        reconnect: int = RECONNECT,
        stop: threading.Event | None = None,
    ) -> None:
        """Take a source; nothing is read before iteration.

        Args:
            predictor: the model.
            source: see `source.source_of`.
            every: seconds from one window to the next; EVERY if frames aren't said either.
            every_frames: the same in frames.
            window: seconds that a window spans, for a model that takes frames of equal parts.
            num_crops: of each window, 1 or 3.
            multi_label: as the weights say when None.
            topk: classes that predictions name.
            timeout: seconds without a frame after which the source counts as failed.
            reconnect: how often a stream that failed is tried, one after the other.
            stop: set it to end the iteration.

        Raises:
            UserError: an argument can't be.
        """
        self.span = span_of(predictor.model.sampling, window)
        if every is not None and not 0 < every < float("inf"):
            raise UserError(f"--every {every:g}: must be seconds above 0")
        self.predictor, self.source = predictor, source
        self.testing = testing_of(predictor, num_crops, multi_label)
        self.crops = predictor.model.crops(num_crops)
        self.every, self.every_frames = every, every_frames
        self.topk, self.timeout, self.reconnect = topk, timeout, reconnect
        self.stop = stop or threading.Event()
        self.summary = Summary()

    def __iter__(self) -> Iterator[Seen]:
        """Yield what is seen.

        Raises:
            VideoError: the source can't be opened; or it failed and didn't come back.
            UserError: scores aren't finite.
        """
        live = Live(self.source, self._windows, self.timeout, self.reconnect)
        begun = before = time.monotonic()
        frames = 0
        try:
            while not self.stop.is_set() and not live.over:
                offer = live.take(POLL)
                if offer is None:
                    continue
                pixels = self.crops.crops(offer.window.frames)
                joined = self.testing.joined(self.predictor.score(pixels))
                now = time.monotonic()
                count, live_frames = live.dropped, live.frames
                seen = Seen(
                    start=offer.window.start,
                    end=offer.window.end,
                    at=datetime.now().astimezone(),
                    prediction=Prediction(
                        self.source.word, joined, self.testing, self.predictor.class_names,
                        damage=live.damage, topk=self.topk,
                    ),
                    latency=now - offer.arrived,
                    fps=(live_frames - frames) / max(now - before, 1e-9),
                    dropped=count,
                )  # fmt: skip
                frames, before = live_frames, now
                self._add(seen.latency)
                yield seen
        finally:
            live.close()
            self.summary.frames, self.summary.dropped = live.frames, live.dropped
            self.summary.opened, self.summary.damage = live.opened, live.damage
            self.summary.seconds = time.monotonic() - begun

    def _add(self, latency: float) -> None:
        done = self.summary
        done.latency = (done.latency * done.predictions + latency) / (done.predictions + 1)
        done.predictions += 1
        done.longest = max(done.longest, latency)

    def _windows(self, fps: float, tick: float, first: int) -> Windows:
        """Return the windows of a source that was just opened."""
        stride = self.every_frames / fps if self.every_frames else self.every or EVERY
        stride = max(stride, 1 / fps)  # more often they would show the same frames
        moments = moments_of(self.predictor.model.sampling, self.span, fps)
        places = places_from(moments, self.span, tick, first, stride)
        return Windows(places, self.crops.frame)
