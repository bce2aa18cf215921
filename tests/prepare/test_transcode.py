"""Prepared videos: the frames and times of their source, in a form that is quick to read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch
from dataset_layouts import write_pictures, write_tiny
from PIL import Image
from video_fixtures import write_video

from timesformer.clips.sampling import RateSampler
from timesformer.datasets.decoder import decode_all, load_clip, probe
from timesformer.datasets.lists.records import Images
from timesformer.datasets.video import frame_folder
from timesformer.prepare.copies import Job, Outcome, Prepare
from timesformer.prepare.transcode import TranscodeSettings, prepared_size, read_folder, transcode
from timesformer.utils.errors import UserError, VideoError

SETTINGS = TranscodeSettings()
STEP = 6  # in brightness from one frame to the next; that of `write_tiny` is 3
UNEVEN = [0, 1, 3, 4, 5, 9, 10, 12, 13, 14, 20, 21, 22, 23, 26, 27, 28, 29, 30, 31, 40, 41, 42, 43]


KINDS = ["cfr", "vfr", "vfr.mkv", "gaps", "late", "raw", "webm", "avi"]


class Stream(NamedTuple):
    times: list[float | None]
    keys: list[int]
    kinds: set[str]
    streams: int


def read_stream(path: Path) -> Stream:
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.video[0]))
        kinds = {av.video.frame.PictureType(frame.pict_type).name for frame in frames}
        keys = [i for i, frame in enumerate(frames) if frame.key_frame]
        return Stream([frame.time for frame in frames], keys, kinds, len(container.streams))


def grey_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames told apart by their brightness even after lossy compression."""
    levels = (np.arange(count) * STEP % 240).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean difference in brightness of two clips (T, H, W, 3), that of their worst frame."""
    return (first.float().mean(-1) - second.float().mean(-1)).abs().mean((1, 2)).max().item()


def write_source(folder: Path, kind: str) -> Path:
    b_frames = {"bf": "3", "g": "30"}
    if kind == "vfr":
        return write_video(folder / "a.mp4", grey_frames(24), times=UNEVEN, options=b_frames)
    if kind == "vfr.mkv":  # its header doesn't say how long the last frame lasts
        return write_video(folder / "a.mkv", grey_frames(24), times=UNEVEN, options=b_frames)
    if kind == "gaps":
        return write_video(folder / "a.avi", grey_frames(24), times=UNEVEN, options={"bf": "0"})
    if kind == "late":
        return write_video(folder / "a.mp4", grey_frames(40), first_pts=7, options=b_frames)
    if kind == "raw":
        return write_video(folder / "a.h264", grey_frames(40), options={"bf": "0"})
    if kind in ("webm", "avi"):
        return write_tiny(folder / f"a.{kind}", 40, 25)
    return write_video(folder / "a.mp4", grey_frames(40), fps=25, options=b_frames)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_times_stay(tmp_path: Path, kind: str) -> None:
    source, target = write_source(tmp_path, kind), tmp_path / "out.mp4"
    before = read_stream(source)
    assert transcode(source, target, SETTINGS) == len(before.times)
    after = read_stream(target)
    if kind == "gaps":  # the decoder gives the times of other packets
        before = before._replace(times=[time / 30 for time in UNEVEN])
    if kind == "raw":  # it has no times
        before = before._replace(times=[i / probe(source).fps for i in range(40)])
    np.testing.assert_allclose(after.times, before.times, atol=1e-6)
    assert probe(target).fps == pytest.approx(probe(source).fps, rel=1e-3)
    assert np.diff([*after.keys, len(after.times)]).max() <= SETTINGS.gop
    assert after.kinds == {"I", "P"}
    assert after.streams == 1
    content = target.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("kind", KINDS)
def test_clips_have_the_frames_of_the_source(tmp_path: Path, kind: str) -> None:
    source, target = write_source(tmp_path, kind), tmp_path / "out.mp4"
    transcode(source, target, TranscodeSettings(crf=0))
    if kind in ("vfr", "vfr.mkv", "gaps"):
        assert not probe(source).constant_rate
        assert probe(target).fps == pytest.approx(probe(source).fps, rel=1e-5)
    for view in ((0, 3), (1, 3), (2, 3)):
        for rate in (1, 2, 3, 6):
            clips = [load_clip(p, 6, rate, view, clip_sampling="uniform") for p in (source, target)]
            assert difference(*clips) < 2.2


def test_a_folder_of_frames_becomes_the_same_clips(tmp_path: Path) -> None:
    folder, target = write_pictures(tmp_path / "frames", 12), tmp_path / "out.mp4"
    assert transcode(folder, target, TranscodeSettings(frames_fps=10.0, crf=0)) == 12
    np.testing.assert_allclose(read_stream(target).times, np.arange(12) / 10, atol=1e-6)
    sampler = RateSampler(4, 3, 10.0, "uniform")
    for i in range(5):  # views 1 and 3 of them start between two frames
        clips = frame_folder.load_clips(
            str(folder), lambda n, fps, i=i: [sampler.place(n, fps, (i, 5))], 10.0
        )
        prepared = load_clip(target, 4, 3, (i, 5), 10.0, clip_sampling="uniform")
        assert difference(clips.frames[0], prepared) < 2.2
    job = Job(str(folder), str(tmp_path / "part.mp4"), Images(3, 5))
    assert Prepare(TranscodeSettings())(job) == Outcome()  # those that its list says
    assert len(read_stream(tmp_path / "part.mp4").times) == 5


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again for every few images it would be read in quadratic time."""
    folder, listed = write_pictures(tmp_path / "frames", 70), []
    real = frame_folder.os.listdir
    monkeypatch.setattr(frame_folder.os, "listdir", lambda p: listed.append(p) or real(p))
    assert len(list(read_folder(str(folder)))) == 70
    assert listed == [str(folder)]
    Image.new("RGB", (8, 8)).save(folder / "frames_000040.jpg")
    with pytest.raises(VideoError, match="differ in size"):
        list(read_folder(str(folder)))


def test_videos_shrink_to_the_short_side(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "a.mp4", 4, side=96)
    transcode(source, tmp_path / "out.mp4", TranscodeSettings(short_side=48))
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height) == (64, 48)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), (456, 256)),
        ((1080, 1920), (256, 456)),
        ((340, 256), (340, 256)),
        ((320, 240), (320, 240)),  # never enlarged
        ((321, 243), (320, 242)),
        ((255, 257), (254, 256)),
        ((1, 1), (2, 2)),  # the least there is
    ],
)
def test_prepared_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert prepared_size(*size, 256) == expected


def test_rotation_is_undone(tmp_path: Path) -> None:
    frames = grey_frames(10)
    frames[:, :16, :16] = 255  # marks the corner at the top left
    source = write_video(tmp_path / "a.mp4", frames)
    content = bytearray(source.read_bytes())
    matrix = content.find(b"tkhd") + 44
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    source.write_bytes(content)
    transcode(source, tmp_path / "out.mp4", SETTINGS)
    upright = load_clip(source, 1, 1)[0].float()
    prepared = load_clip(tmp_path / "out.mp4", 1, 1)[0].float()
    assert upright.shape == (64, 48, 3)
    assert upright[:16, 32:].min() > 250  # the corner is at the top right
    assert (upright - prepared).abs().mean() < 2
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


def test_sound_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), layout="mono")
        wave.sample_rate = 8000
        pictures = [av.VideoFrame.from_ndarray(x, format="rgb24") for x in grey_frames(5, 32, 32)]
        for stream, frame in [(sound, wave), *((video, x) for x in (*pictures, None))]:
            container.mux(stream.encode(frame))
    assert read_stream(path).streams == 2
    assert transcode(path, tmp_path / "out.mp4", SETTINGS) == 5
    assert read_stream(tmp_path / "out.mp4").streams == 1


def broken_source(folder: Path, fault: str) -> Path:
    path = folder / "a.mkv"
    if fault == "missing":
        return path
    if fault == "text":
        path.write_text("no video")
        return path
    if fault == "frames":
        write_pictures(folder / "frames", 4)
        (folder / "frames" / "frames_000003.jpg").write_bytes(b"no picture")
        return folder / "frames"
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3)).astype(np.uint8)
    content = bytearray(write_video(path, noise).read_bytes())
    middle = len(content) // 2
    if fault == "cut":
        path.write_bytes(content[:middle])
    else:
        content[middle : middle + 2000] = bytes(2000)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("fault", ["missing", "text", "frames", "cut", "hole"])
def test_a_broken_source_leaves_nothing_behind(tmp_path: Path, fault: str) -> None:
    source, folder = broken_source(tmp_path, fault), tmp_path / "out"
    folder.mkdir()
    with pytest.raises(VideoError) as caught:
        transcode(source, folder / "out.mp4", SETTINGS)
    assert str(source) in caught.value.path
    assert list(folder.iterdir()) == []
    (folder / "out.mp4").write_text("of an earlier run")
    with pytest.raises(VideoError):
        transcode(source, folder / "out.mp4", SETTINGS)
    assert [path.read_text() for path in folder.iterdir()] == ["of an earlier run"]


def test_a_size_that_changes_is_an_error(tmp_path: Path) -> None:
    parts = [write_source(tmp_path, "raw").read_bytes()]
    parts.append(write_video(tmp_path / "b.h264", grey_frames(4, 32, 32)).read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    with pytest.raises(VideoError, match="from 64x48 to 32x32"):
        transcode(tmp_path / "both.h264", tmp_path / "out.mp4", SETTINGS)


def test_a_full_disk_is_no_fault_of_the_video(tmp_path: Path) -> None:
    """The limit to the size of files stands in for it."""
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (20, 96, 128, 3)).astype(np.uint8)
    source, target = write_video(tmp_path / "a.mp4", noise), tmp_path / "out.mp4"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"out.mp4: can't be written: File too large") as caught:
            transcode(source, target, TranscodeSettings(crf=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(caught.value, VideoError)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    "bad", [{"short_side": 255}, {"short_side": 0}, {"gop": 0}, {"crf": 52}, {"crf": -1}]
)
def test_impossible_settings_name_the_option(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(bad))}".replace("_", "-")):
        TranscodeSettings(**bad)


def test_real_videos(shared_videos: Path, tmp_path: Path) -> None:
    """Full range, odd sizes, a rotation, frames out of order, variable rates."""
    names = "exo__video_1.mp4 mmaction2__part_0.mp4 exo__bear-vp9-odd-dimensions.webm"
    for name in f"{names} decord__video_90.mov decord__unordered.mov".split():
        source, target = shared_videos / name, tmp_path / f"{name}.mp4"
        transcode(source, target, SETTINGS)
        np.testing.assert_allclose(read_stream(target).times, read_stream(source).times, atol=1e-6)
        pairs = zip(decode_all(source), decode_all(target), strict=True)
        for before, after in list(pairs)[::6]:
            rows, columns = (
                np.arange(n) * size // n
                for n, size in zip(after.shape, before.shape[:2], strict=False)
            )
            shrunk = before[rows[:, None], columns].astype(float)
            assert np.abs(shrunk.mean((0, 1)) - after.mean((0, 1))).max() < 2
