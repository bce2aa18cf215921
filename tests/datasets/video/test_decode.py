"""The decoder on videos whose every pixel is known."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import RateSampler
from timesformer.datasets.decoder import (
    VideoError,
    decode_all,
    load_clip,
    load_clips,
    load_frames,
    probe,
)
from timesformer.datasets.video import decode as decoder
from timesformer.datasets.video import file as video_file


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


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Numbers of the frames that are decoded, and how many are converted."""
    decoded: list[int] = []
    converted: list[int] = []
    frames, convert = decoder._frames, decoder.Converter.__call__

    def spy(*args, **kwargs):
        for number, frame in frames(*args, **kwargs):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(decoder, "_frames", spy)
    monkeypatch.setattr(
        decoder.Converter, "__call__", lambda self, f: converted.append(f.pts) or convert(self, f)
    )
    return decoded, converted


def clips_of(path: Path, sampler: RateSampler, views: list[tuple[int, int]]) -> list:
    return load_clips(path, lambda n, fps: [sampler.place(n, fps, v) for v in views]).frames


def test_one_pass_converts_only_what_is_needed(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, converted = counted(monkeypatch)
    clips = clips_of(video, RateSampler(4, 4), [(0, 3), (1, 3)])  # spans 16 of 50
    assert [numbers(clip) for clip in clips] == [[0, 5, 10, 15], [12, 17, 22, 27]]
    assert decoded == list(range(28))
    assert len(converted) == 8
    assert [load_clip(video, 4, 4, (i, 3)).equal(clips[i]) for i in range(2)] == [True, True]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("first_pts", [0, 7])
def test_seeks_reach_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, b_frames: int, first_pts: int
) -> None:
    path = tmp_path / f"video{suffix}"
    options = {"g": "8", "bf": str(b_frames)}
    write_video(path, numbered_frames(120), first_pts=first_pts, options=options)
    decoded, _ = counted(monkeypatch)
    for wanted in ([100], [3, 40, 41, 119], [0, 60], [7, 8, 15, 16, 17, 90], [50, 50, 500]):
        decoded.clear()
        (clip,) = load_frames(path, wanted).frames
        assert numbers(clip) == [min(n, 119) for n in wanted]
        assert len(decoded) < 8 * len(wanted) + 8
        assert decoded == sorted(set(decoded))


def test_an_index_that_leads_astray_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.mp4", numbered_frames(120), options={"g": "8"})
    read = video_file.index_of_header
    for shift in (1, 512, -512):

        def wrong(*args, shift=shift):
            index = read(*args)
            return replace(index, pts=index.pts + shift)

        monkeypatch.setattr(video_file, "index_of_header", wrong)
        assert numbers(load_frames(path, [5, 70, 100]).frames[0]) == [5, 70, 100]


def test_an_index_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = write_video(tmp_path / "video.mkv", numbered_frames(20)), []
    read = video_file.read_packets
    monkeypatch.setattr(video_file, "read_packets", lambda *args: calls.append(1) or read(*args))
    assert load_clip(path, 4, 4).equal(load_clip(path, 4, 4))
    assert len(calls) == 1
    write_video(path, numbered_frames(30))  # another file of that name
    assert numbers(load_frames(path, [29]).frames[0]) == [29]
    assert len(calls) == 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_variable_rate_is_sampled_by_time(tmp_path: Path, suffix: str) -> None:
    """Frames 0-19 at 30/s, then one each half second, a mean of 5.6/s; Matroska says 30/s."""
    times = [*range(20), *(20 + 15 * i for i in range(10))]
    path = write_video(tmp_path / f"video{suffix}", numbered_frames(30), times=times)
    # 4 s in 4 frames: frames 0, 7, 14 and 21 of 5.6/s, at 0, 1.2, 2.5 and 3.7 s.
    assert numbers(load_clip(path, 4, 30)) == [0, 21, 23, 26]
    assert not probe(path).constant_rate
    assert probe(write_video(tmp_path / f"steady{suffix}", numbered_frames(30))).constant_rate


def test_moments_at_a_variable_rate_are_not_rounded(tmp_path: Path) -> None:
    """Frames of 1/30 s, then of 1 s: half a mean frame is many of the short ones."""
    times = [*range(30), *range(30, 330, 30)]
    path = write_video(tmp_path / "video.mkv", numbered_frames(40), times=times)
    mean = (times[-1] - times[0]) / 39 / 30  # seconds; a clip of 7 frames spans 10 mean frames
    moments = [30 * mean * 9 / 6 * i for i in range(7)]
    shown = [max(n for n, time in enumerate(times) if time <= moment) for moment in moments]
    assert shown == [0, 11, 23, 30, 30, 30, 31]  # 0, 7, 23, … where offsets are whole
    rate = 10 / 7 * mean * 30
    assert numbers(load_clip(path, 7, 1, target_fps=30 / rate)) == shown


def slow_then_fast(path: Path) -> Path:
    """Write 64 frames, first 4/30 s each and then 1/30 s, with B-frames and a key each 8 frames.

    An mp4's timestamps of decoding are moved by the reordering of its slow start, so a seek to a
    key of the fast part leads to the key before.
    """
    times = [*range(0, 96, 4), *range(96, 136)]
    options = {"g": "8", "bf": "2", "qp": "1"}  # x264 makes no B-frames of lossless video
    return write_video(path, numbered_frames(64), times=times, options=options)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_seek_may_lead_further_back_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path, sampler = slow_then_fast(tmp_path / f"video{suffix}"), RateSampler(4, 30)
    monkeypatch.setattr(decoder, "WORTH_A_SEEK", 100)
    (expected,) = clips_of(path, sampler, [(0, 1)])
    assert numbers(expected) == [0, 9, 19, 45]
    monkeypatch.undo()
    decoded, _ = counted(monkeypatch)
    assert clips_of(path, sampler, [(0, 1)])[0].equal(expected)
    assert len(decoded) < 30


@pytest.mark.parametrize("fails", ["seeks", "timestamps"])
def test_a_variable_rate_is_sampled_by_time_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path, sampler = slow_then_fast(tmp_path / "video.mp4"), RateSampler(4, 8)
    expected = clips_of(path, sampler, [(1, 2)])
    monkeypatch.setattr(decoder, "starts_as_indexed", lambda *_: False)
    if fails == "timestamps":
        monkeypatch.setattr(decoder.FrameIndex, "number", lambda *_: -1)
    found = load_clips(path, lambda n, fps: [sampler.place(n, fps, (1, 2))])
    assert found.frames[0].equal(expected[0])
    assert ("they were counted" in found.damage) == (fails == "timestamps")


def test_a_damaged_video_of_variable_rate_is_sampled_by_time(tmp_path: Path) -> None:
    """Its frames were counted, as at a constant rate."""
    times = [*range(20), *range(20, 320, 6)]
    options = {"g": "8", "bf": "2", "qp": "1"}
    whole = write_video(tmp_path / "whole.mp4", numbered_frames(70), times=times, options=options)
    with av.open(str(whole)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][17]
    data = bytearray(whole.read_bytes())
    end = packet.pos + packet.size
    data[end - 10 : end] = b"\xff" * 10
    (tmp_path / "damaged.mp4").write_bytes(data)
    sampler = RateSampler(10, 20)
    found = load_clips(tmp_path / "damaged.mp4", lambda n, fps: [sampler.place(n, fps, (0, 1))])
    assert found.damage.startswith("decoded in spite of errors")
    (clip,) = clips_of(whole, sampler, [(0, 1)])
    assert numbers(clip) == [0, 20, 23, 27, 31, 34, 38, 42, 45, 49]
    assert found.frames[0][3:].equal(clip[3:])


def test_probe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(50), fps=25, options={"g": "10"})
    info = probe(path)
    assert (info.frames, info.fps, info.duration) == (50, 25.0, 2.0)
    assert (info.width, info.height, info.codec, info.keyframes) == (64, 48, "h264", 5)
    with pytest.raises(VideoError, match="no such file"):
        probe(tmp_path / "none.mp4")


def test_decode_all(video: Path) -> None:
    assert np.array_equal(np.stack(list(decode_all(video))), numbered_frames(50))


@pytest.mark.parametrize(
    ("fps", "frame_ticks", "expected"),
    [(30.0, 512.0, 30.0), (0.0, 512.0, 30.0), (1000.0, 512.0, 30.0), (25.0, 0.0, 25.0)],
)
def test_rate_from_timestamps_where_the_header_lies(
    fps: float, frame_ticks: float, expected: float
) -> None:
    fps, frame_ticks = video_file.complete_rate("x", fps, frame_ticks, 1 / 15360)
    assert fps == pytest.approx(expected)
    assert frame_ticks == pytest.approx(15360 / expected)


def test_neither_rate_nor_timestamps() -> None:
    with pytest.raises(VideoError, match="neither a frame rate nor timestamps"):
        video_file.complete_rate("x", 0.0, 0.0, 1 / 1200000)


def test_time_is_limited(video: Path) -> None:
    with pytest.raises(VideoError, match=r"more than 0 s \(DATA.DECODE_TIMEOUT\)"):
        load_frames(video, [40], timeout=0)


def test_a_size_that_changes_is_refused(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{h}.ts", numbered_frames(20, h, 64)).read_bytes() for h in (48, 32)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    with pytest.raises(VideoError, match="frame size changes from 64x48 to 64x32"):
        load_frames(path, [5, 35])


def test_a_strip_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "strip.mp4", numbered_frames(3, 4, 1000))
    with pytest.raises(VideoError, match="1000x4 are no picture but a strip"):
        load_clip(path, 2, 1)


def test_damage_is_told_and_intact_files_have_none(tmp_path: Path, video: Path) -> None:
    assert load_frames(video, [0, 20, 49]).damage == ""
    data = bytearray(video.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 40] = b"\xff" * 40
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert load_frames(path, range(50)).damage
    cut = write_video(tmp_path / "whole.mkv", numbered_frames(200, 96, 128))
    (tmp_path / "cut.mkv").write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for wanted in ([0, 1], [0, 199]):
        assert re.fullmatch(
            r"ends after [\d.]+ of 6.67 s", load_frames(tmp_path / "cut.mkv", wanted).damage
        )
    assert load_frames(cut, [0, 199]).damage == ""


def test_packets_that_are_lost_in_the_middle_are_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", numbered_frames(250, 96, 128), options={"g": "20"})
    cluster = b"\x1f\x43\xb6\x75"
    parts = whole.read_bytes().split(cluster)
    assert len(parts) > 3
    parts[2] = bytes(len(parts[2]))
    data = cluster.join(parts[:2]) + bytes(4) + cluster.join(parts[2:])
    (tmp_path / "hole.mkv").write_bytes(data)
    for wanted in ([0, 1], [0, 100]):
        assert re.fullmatch(
            r"[\d.]+ s of it are missing", load_frames(tmp_path / "hole.mkv", wanted).damage
        )
    # A pause of a variable rate is none.
    times = [*range(20), *range(400, 420)]
    paused = write_video(tmp_path / "paused.mkv", numbered_frames(40, 96, 128), times=times)
    assert load_frames(paused, [0, 39]).damage == ""


def test_clips_are_placed_once_however_often_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.mp4", numbered_frames(120), options={"g": "8"})
    sampler, placed = RateSampler(4, 4), []

    def place(frames: int, fps: float) -> list:
        placed.append(1)
        return [sampler.place(frames, fps, None, rng)]

    rng = np.random.default_rng(1)
    expected = load_clips(path, place).frames[0]
    read = video_file.index_of_header
    monkeypatch.setattr(
        video_file,
        "index_of_header",
        lambda *args: replace(read(*args), pts=read(*args).pts + 1),  # leads astray
    )
    rng = np.random.default_rng(1)
    assert load_clips(path, place).frames[0].equal(expected)
    assert len(placed) == 2


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_reading_leaves_nothing_open(tmp_path: Path, video: Path) -> None:
    def held() -> tuple[int, int]:
        return tuple(len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("fd", "task"))

    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:500])
    (tmp_path / "text.mp4").write_text("no video")
    load_clip(video, 8, 4)
    before = held()
    for _ in range(20):
        load_clip(video, 8, 4)
        probe(video)
        next(decode_all(video))
        for path in (cut, tmp_path / "text.mp4", tmp_path / "none.mp4"):
            with pytest.raises(VideoError):
                load_clip(path, 8, 4)
    assert held() == before


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
        (".", "a folder without frames"),
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
    monkeypatch.setattr(video_file, "MAX_PIXELS", 64 * 48 - 1)
    monkeypatch.setattr(decoder, "_decode", None)
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
