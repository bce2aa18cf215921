"""What features of many videos cost, from rates that are measured on a few of them here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from timesformer.clips.transform import one_thread
from timesformer.datasets.lists.records import Records
from timesformer.datasets.video.reader import VideoReader
from timesformer.inference.encoder import Encoder, features_of
from timesformer.inference.predictor import Predictor
from timesformer.inference.settings import Settings, look_of
from timesformer.utils.errors import UserError
from timesformer.utils.logging import progress
from timesformer.utils.text import counted, format_table

SAMPLE = 16  # videos that are measured
COUNTS = (10**4, 10**5, 10**6, 10**7, 10**8)
HOUR = 3600.0


@dataclass(frozen=True)
class Rates:
    """What a video costs, in the mean.

    Attributes:
        decode: seconds of one core, from file to pixels.
        model: seconds of the device, from pixels to features.
        size: bytes of features.
    """

    decode: float
    model: float
    size: float


def plan(
    predictor: Predictor,
    videos: Records,
    settings: Settings,
    workers: int,
    reader: VideoReader | None = None,
) -> str:
    """Measure some of the videos; return a table of what many like them cost.

    Args:
        predictor: the model, on its device.
        videos: the list; SAMPLE of them, spread over it, are read.
        settings: what is extracted.
        workers: processes that decode, beside one device.
        reader: reads files; by PyAV when None.

    Raises:
        UserError: none of them can be read; or what is asked for the model doesn't have.
    """
    rates = measure(predictor, videos, settings, reader)
    cores = max(workers, 1)
    rows = [["videos", "core hours", "device hours", f"hours, {cores} cores + 1 device", "bytes"]]
    for count in COUNTS:
        decode, model = (count * seconds / HOUR for seconds in (rates.decode, rates.model))
        # Without processes of its own decoding waits for the model, and on a CPU both want it.
        shares = decode / cores, model
        apart = workers > 0 and predictor.device.type != "cpu"
        hours = max(shares) if apart else sum(shares)
        size = _bytes(count * rates.size)
        rows.append([f"{count:,}", _short(decode), _short(model), _short(hours), size])
    ratio = rates.decode / rates.model
    return "\n".join([
        format_table(rows),
        f"measured on {_device(predictor)}, {os.cpu_count()} cores here: a video takes "
        f"{1e3 * rates.decode:.3g} ms of a core to decode and {1e3 * rates.model:.3g} ms of the "
        f"device; {ratio:.2g} cores feed one device",
    ])  # fmt: skip


def measure(
    predictor: Predictor, videos: Records, settings: Settings, reader: VideoReader | None = None
) -> Rates:
    """Time decoding and the model on some videos; see `plan`."""
    step = max(1, len(videos) // SAMPLE)
    chosen = videos.take(range(0, len(videos), step)[:SAMPLE])
    encoder = Encoder(predictor, settings.level, settings.layer, settings.batch_size)
    look = look_of(predictor, settings)
    dataset = look.dataset(predictor.model, chosen, reader)
    decode = model = size = 0.0
    done: set[int] = set()
    passes = [*look.passes(0, range(len(chosen)), dataset.length)]
    for one in progress(passes, "measure"):
        for counts in (False, True) if one is passes[0] else (True,):  # the first one warms up
            start = time.perf_counter()
            with one_thread():
                [decoded] = dataset.__getitems__([one])
            middle = time.perf_counter()
            crops, sliding = look.testing.num_crops, look.windows is not None
            found = features_of(encoder, decoded, crops, sliding)
            if predictor.device.type == "cuda":
                torch.cuda.synchronize(predictor.device)
            if counts:
                decode += middle - start
                model += time.perf_counter() - middle
        done |= {read.piece.index for read, _, _ in found if not read.error}
        size += sum(features.nbytes for _, features, _ in found) / (2 if settings.fp16 else 1)
    if not done:
        raise UserError(f"none of {len(chosen)} videos can be read: {chosen[0].path} is the first")
    return Rates(decode / len(done), max(model, 1e-9) / len(done), size / len(done))


def _device(predictor: Predictor) -> str:
    if predictor.device.type == "cuda":
        return torch.cuda.get_device_name(predictor.device)
    return f"the CPU, {counted(torch.get_num_threads(), 'thread')}"


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _bytes(size: float) -> str:
    unit = next(u for u in ("kB", "MB", "GB", "TB", "PB") if (size := size / 1000) < 1000)
    return f"{size:.3g} {unit}"
