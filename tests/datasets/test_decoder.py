"""The decoder on videos whose every pixel is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_fixtures import numbered_frames, write_video

from timesformer.datasets import decoder
from timesformer.datasets.decoder import VideoError, load_clip, load_clips
from timesformer.datasets.sampling import RateSampler


def numbers(clip: np.ndarray) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in clip]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "50 frames.mp4", numbered_frames(50))


def test_pixels_are_exact_and_upright(video: Path) -> None:
    clip = load_clip(video, 50, 1)
    assert clip.dtype.is_floating_point is False
    assert np.array_equal(clip.numpy(), numbered_frames(50))


# 8x4 at 30 frames/s spans 32 of 50 frames, so delta is 18.
@pytest.mark.parametrize(
    ("view", "placement", "first"),
    [((0, 1), "legacy", 0), ((1, 3), "legacy", 6), ((0, 1), "center", 9), ((1, 2), "uniform", 18)],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("first_pts", [0, 90])
def test_frames_by_container(
    tmp_path: Path, view: tuple[int, int], placement: str, first: int, suffix: str, first_pts: int
) -> None:
    """With and without a header count, and where the stream starts later than 0."""
    path = write_video(tmp_path / f"video{suffix}", numbered_frames(50), first_pts=first_pts)
    clip = load_clip(path, 8, 4, view, clip_sampling=placement)
    assert numbers(clip) == [first + i for i in (0, 4, 8, 13, 17, 22, 26, 31)]


def test_a_start_between_frames_takes_the_next_one(video: Path) -> None:
    """Delta 18, view 1 of 4 starts at 4.5."""
    assert numbers(load_clip(video, 8, 4, (1, 4)))[0] == 5


def test_other_frame_rates(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", numbered_frames(50), fps=Fraction(30000, 2002))
    assert numbers(load_clip(path, 8, 8)) == [
        int(i * (64 * 15 / 1.001 / 30 - 1) / 7) for i in range(8)
    ]
    assert numbers(load_clip(path, 4, 1, target_fps=15 / 1.001)) == [0, 1, 2, 3]


def test_raw_stream_without_timestamps(tmp_path: Path) -> None:
    """FFmpeg assumes 25 frames/s: 8x4 spans 26.7 frames, delta is 23.3."""
    path = write_video(tmp_path / "video.h264", numbered_frames(50))
    assert numbers(load_clip(path, 2, 4, (0, 1))) == [0, 5]
    assert numbers(load_clip(path, 8, 4, (1, 2)))[0] == 12


def test_a_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", numbered_frames(5))
    assert numbers(load_clip(path, 8, 32)) == [0] + [4] * 7
    assert numbers(load_clip(path, 3, 32, None)) == [0, 4, 4]


def test_random_clips_follow_the_rng(video: Path) -> None:
    def clip(seed: int) -> list[int]:
        return numbers(load_clip(video, 8, 4, None, rng=np.random.default_rng(seed)))

    assert clip(1) == clip(1)
    assert len({clip(seed)[0] for seed in range(20)}) > 5


def test_one_pass_converts_only_what_is_needed(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, converted = [], []
    pts = decoder._StreamInfo.pts
    convert = decoder._Converter.__call__
    monkeypatch.setattr(
        decoder._StreamInfo, "pts", lambda self, f, i: decoded.append(i) or pts(self, f, i)
    )
    monkeypatch.setattr(
        decoder._Converter, "__call__", lambda self, f: converted.append(f.pts) or convert(self, f)
    )
    clips = load_clips(video, RateSampler(4, 4), [(0, 3), (1, 3)])  # spans 16 of 50
    assert [numbers(clip) for clip in clips] == [[0, 5, 10, 15], [12, 17, 22, 27]]
    assert decoded == list(range(28))
    assert len(converted) == 8
    assert [load_clip(video, 4, 4, (i, 3)).equal(clips[i]) for i in range(2)] == [True, True]


@pytest.mark.parametrize(
    ("fps", "frame_ticks", "expected"),
    [(30.0, 512.0, 30.0), (0.0, 512.0, 30.0), (1000.0, 512.0, 30.0), (25.0, 0.0, 25.0)],
)
def test_rate_from_timestamps_where_the_header_lies(
    fps: float, frame_ticks: float, expected: float
) -> None:
    info = decoder._make_info("x", 50, fps, frame_ticks, Fraction(1, 15360), None)
    assert info.fps == expected
    assert info.frame_ticks == pytest.approx(15360 / expected)


def test_neither_rate_nor_timestamps() -> None:
    with pytest.raises(VideoError, match="neither a frame rate nor timestamps"):
        decoder._make_info("x", 50, 0.0, 0.0, Fraction(1, 1200000), None)


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "not a video"),
        ("text.mp4", "not a video"),
        ("audio.mp4", "no video stream"),
        (".", "is a directory"),
        ("nul\0.mp4", "NUL"),
        ("cut.mp4", "not a video"),
        ("playlist.m3u8", "invalid data"),
    ],
)
def test_broken_files_are_video_errors(tmp_path: Path, video: Path, name: str, reason: str) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:2000])
    (tmp_path / "playlist.m3u8").write_text("#EXTM3U\n#EXTINF:5,\nhttp://localhost:1/x.ts\n")
    _audio_only(tmp_path / "audio.mp4")
    with pytest.raises(VideoError, match=reason) as caught:
        load_clip(f"{tmp_path}/{name}", 8, 4)
    assert caught.value.path.startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_huge_frames_are_refused_before_decoding(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_PIXELS", 64 * 48 - 1)
    monkeypatch.setattr(decoder, "_decode_into", None)
    with pytest.raises(VideoError, match="64x48 are too large"):
        load_clip(video, 8, 4)


def test_mutated_files_give_frames_or_a_video_error(tmp_path: Path, video: Path) -> None:
    data = np.frombuffer(video.read_bytes(), np.uint8)
    outcomes = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = data.copy()
        damaged[rng.integers(0, len(data), 20)] ^= 1 << rng.integers(0, 8, 20).astype(np.uint8)
        path = tmp_path / "damaged.mp4"
        path.write_bytes(damaged.tobytes()[: rng.integers(1, 2 * len(data))])
        try:
            assert load_clip(path, 8, 4).shape[0] == 8
            outcomes.add("frames")
        except VideoError:
            outcomes.add("error")
    assert outcomes == {"frames", "error"}


def test_wrong_arguments_are_not_blamed_on_the_video(video: Path) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        load_clip(video, 0, 4)
    with pytest.raises(ValueError, match="no view 2 of 2"):
        load_clip(video, 8, 4, (2, 2))
