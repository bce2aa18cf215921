"""The decoder on real files: exactly the published frames, and nothing but frames or VideoError."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest

from timesformer.clips.sampling import SegmentSampler
from timesformer.datasets.decoder import VideoError, load_clip, load_clips, probe

UNREADABLE = {
    "decord__corrupted.mp4",  # fails after 28 of 50 frames
    "derived__empty.mp4",
    "derived__text.mp4",
    "derived__truncated_moov_last.mp4",
    "exo__sample_opus.mp4",  # audio only
}
UPRIGHT = {  # first frame of files that are stored rotated: (H, W) and CRC-32, seen to be upright
    "decord__video_90.mov": ((568, 320), 3042937016),
    "decord__video_180.mov": ((320, 568), 2523421734),
    "torchcodec__nasa_13013_rotated.mp4": ((480, 270), 2764802168),
    "exo__video_1.mp4": ((352, 288), 2895271100),
}


def test_published_frames(golden: Path, shared_videos: Path) -> None:
    """Indices are implied by the checksums: no two frames of these files are equal."""
    expected = json.loads((golden / "decode.json").read_text())
    assert len(expected) == 42
    for key, entry in expected.items():
        name, frames, view = key.split("|")
        rate, num_frames = map(int, frames.split("x"))
        i, n = map(int, view.split("/"))
        clip = load_clip(shared_videos / name, num_frames, rate, (i, n))
        assert list(clip.shape) == entry["shape"], key
        assert [zlib.crc32(frame.numpy().tobytes()) for frame in clip] == entry["crc32"], key


def test_every_file_gives_frames_or_a_video_error(shared_videos: Path) -> None:
    failed = set()
    files = sorted(path for path in shared_videos.iterdir() if path.suffix != ".md")
    assert len(files) == 38
    for path in files:
        try:
            clip = load_clip(path, 4, 8, (1, 2))
        except VideoError:
            failed.add(path.name)
            continue
        assert clip.shape[0] == 4
    assert failed == UNREADABLE


@pytest.mark.parametrize("name", UPRIGHT)
def test_rotation_is_undone(shared_videos: Path, name: str) -> None:
    frame = load_clip(shared_videos / name, 1, 1)[0]
    assert (tuple(frame.shape[:2]), zlib.crc32(frame.numpy().tobytes())) == UPRIGHT[name]


def write_gaps(path: Path, times: Sequence[int], codec: str, options: dict[str, str]) -> Path:
    """Write an AVI of 30 frames/s whose frame of time t, in frames, is grey 4 t."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for time in times:
            frame = av.VideoFrame(64, 48, "gray8")
            frame.planes[0].update(bytes([4 * time]) * (64 * 48))
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("codec", "options", "delay"),
    [
        ("mpeg4", {"qmin": "1", "qmax": "1"}, 0),
        ("libx264", {"bf": "0"}, 0),
        ("libx264", {"bf": "3"}, 2),
    ],
)
def test_dropped_frames_of_an_avi(
    tmp_path: Path, codec: str, options: dict[str, str], delay: int
) -> None:
    """Its index counts them, the decoder doesn't: a clip keeps its pace all the same."""
    times = [*range(10), *range(25, 40), 47, 48, 49, *range(57, 60)]
    path = write_gaps(tmp_path / "a.avi", times, codec, options)
    info = probe(path)
    assert (info.frames, info.constant_rate, info.damage) == (31, False, "")
    assert info.duration == pytest.approx(2.0, abs=(1 + delay) / 30)
    clip = load_clip(path, 20, 3)  # spans 60 frames' time but for a mean frame, 59 / 30
    found = [min(times, key=lambda t: abs(4 * t - grey)) for grey in clip[:, 24, 32, 0].tolist()]
    moments = [(60 - 59 / 30) / 19 * i + 1e-3 for i in range(20)]
    shown = [max(t for t in times if t <= moment) for moment in moments]
    off = [times.index(a) - times.index(b) for a, b in zip(found, shown, strict=True)]
    assert max(map(abs, off)) <= delay
    (part,) = load_clips(path, lambda n, _: [SegmentSampler(31).place(n, 1.0, (0, 1))]).frames
    assert len({int(grey) for grey in part[:, 24, 32, 0]}) == 30  # all but the last


def test_avi_is_read_in_decoder_order(shared_videos: Path) -> None:
    """Its timestamps are 1 2 4 3 5…: frames sorted by them would jump back and forth."""
    clip = load_clip(shared_videos / "mmaction2__test.avi", 16, 1, target_fps=25.0).float()
    step = (clip[1:] - clip[:-1]).abs().mean()
    swapped = clip[[0, 1, 3, 2, 4, 5, 7, 6, 8, 9, 11, 10, 12, 13, 15, 14]]
    assert step < (swapped[1:] - swapped[:-1]).abs().mean()


@pytest.mark.parametrize("end", [None, 60_000])
def test_header_promises_more_than_there_is(
    shared_videos: Path, tmp_path: Path, end: int | None
) -> None:
    """An AVI whose second and third frame were dropped shows its first one longer.

    Cut, it ends with its last frame repeated.
    """
    path = tmp_path / "cut.avi"
    path.write_bytes((shared_videos / "exo__sample.avi").read_bytes()[:end])
    clip = load_clip(path, 98, 1, target_fps=24000 / 1001)
    assert clip[-1].equal(clip[-2]) == (end is not None)
    assert not clip[0].equal(clip[-1])
