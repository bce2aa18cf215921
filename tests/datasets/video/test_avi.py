"""AVIs in which frames were dropped: chunks without content, of which the decoder knows nothing."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from timesformer.clips.sampling import ClipPosition, RateSampler
from timesformer.datasets.decoder import load_clips, probe
from timesformer.datasets.video import file as video_file

SIZE = 32


@cache
def picture(time: int) -> bytes:
    """A JPEG of grey 2 · time."""
    buffer = io.BytesIO()
    Image.new("L", (SIZE, SIZE), 2 * time).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def write_avi(path: Path, times: Collection[int], count: int = 120, index: str = "all") -> Path:
    """Write an AVI of `count` chunks at 30/s, of which those of `times` have a picture.

    Args:
        path: of the file.
        times: numbers of the chunks with content.
        count: chunks.
        index: of "all" chunks, of the "filled" ones, or "none".
    """
    chunks = [picture(time) if time in times else b"" for time in range(count)]
    movi, listed = b"movi", b""
    for data in chunks:
        if data or index == "all":
            listed += struct.pack("<4s3I", b"00dc", 0x10, len(movi), len(data))
        movi += chunk(b"00dc", data)
    main = struct.pack("<14I", 33333, 0, 0, 0x10, count, 0, 1, 1 << 16, SIZE, SIZE, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sI2H8I4h", b"vids", b"MJPG", *[0] * 4, 1, 30, 0, count, 1 << 16, 0, 0, 0, 0, SIZE, SIZE
    )
    form = struct.pack("<I2i2H4s5I", 40, SIZE, SIZE, 1, 24, b"MJPG", 3 * SIZE * SIZE, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    body = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams) + chunk(b"LIST", movi)
    if index != "none":
        body += chunk(b"idx1", listed)
    path.write_bytes(chunk(b"RIFF", b"AVI " + body))
    return path


EVERY_SECOND = range(0, 120, 2)
HALF = [time for time in range(120) if time < 60 or time % 2 == 0]


@pytest.mark.parametrize(
    ("times", "index"),
    [
        (EVERY_SECOND, "all"),  # a camera of 15 frames/s in an AVI of 30
        ([time for time in range(120) if time % 6 != 5], "all"),
        ([time for time in range(10, 120) if time % 3], "all"),
        ([time for time in range(120) if time not in (40, 41)], "all"),
        (HALF, "none"),  # an interrupted recording
        (HALF, "filled"),
        ([time for time in HALF if time < 100], "all"),  # a screen that stands still at last
        (EVERY_SECOND, "none"),
    ],
)
@pytest.mark.parametrize("view", [0, 1])
def test_clips_are_taken_by_time(
    tmp_path: Path, times: Collection[int], index: str, view: int
) -> None:
    path = write_avi(tmp_path / "a.avi", times, index=index)
    ticks, places = 0.0, []

    def place(frames: int, fps: float) -> list[ClipPosition]:
        nonlocal ticks
        ticks = 30 / fps
        places.append(RateSampler(8, 4, placement="uniform").place(frames, fps, (view, 3)))
        return places

    clips = load_clips(path, place)
    offsets = places[0].exact or places[0].offsets
    moments = [min(times) + (places[0].start + o) * ticks + 1e-6 for o in offsets]
    shown = [max(time for time in times if time <= moment) for moment in moments]
    assert [round(grey / 2) for grey in clips.frames[0][:, 9, 9, 0].tolist()] == shown
    assert clips.damage == ""
    assert probe(path).frames == len(times)


@pytest.mark.parametrize("times", [range(120), [time for time in range(120) if time != 40]])
def test_constant_rates_stay_with_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: Collection[int]
) -> None:
    """Their packets needn't be read."""
    path = write_avi(tmp_path / "a.avi", times)
    monkeypatch.setattr(video_file, "read_packets", None)
    assert (probe(path).frames, probe(path).fps) == (120, 30.0)


@pytest.mark.parametrize("times", [range(120), HALF])
def test_what_was_cut_off_is_told(tmp_path: Path, times: Collection[int]) -> None:
    path = write_avi(tmp_path / "a.avi", times)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(picture(90))])
    last = max(time for time in times if time < 90)
    assert probe(path).damage == f"ends after {last + 1} of 120 frames"
