"""What storage and hostile files do to a reader: it waits for what passes, and for nothing else."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import RateSampler, ViewGrid
from timesformer.clips.training import TrainTransform
from timesformer.clips.transform import EvalTransform
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.video import decode, frame_folder, reader
from timesformer.datasets.video.frame_folder import list_frames, read_image
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils import retry
from timesformer.utils.errors import VideoError

FRAMES = 12


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(FRAMES, 32, 48))
    return path


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Error numbers with which opening a video will fail, first in, first out."""
    errors: list[int] = []
    real = decode.open_video

    def open_video(path: str, strict: bool = True):
        if errors:
            code = errors.pop(0)
            raise VideoError.of_system(path, OSError(code, os.strerror(code)), "can't be read")
        return real(path, strict)

    monkeypatch.setattr(decode, "open_video", open_video)
    monkeypatch.setattr(retry, "WAITS", (0, 0))
    return errors


def random_dataset(*paths: Path) -> VideoDataset:
    records = [Record(str(path), 0) for path in paths]
    transform = TrainTransform((32, 40), 32)
    return VideoDataset(records, RateSampler(2, 2), transform, "train", reader=VideoReader())


def test_an_error_of_storage_that_passes_changes_nothing(video: Path, storage: list[int]) -> None:
    """Where the random clip lies is drawn once, however often the file is read."""
    dataset = random_dataset(video)
    expected = dataset[0, 3][0]
    storage += [errno.EIO, errno.ESTALE]
    assert dataset[0, 3][0].equal(expected)
    assert storage == []


def test_an_error_of_storage_is_not_held_against_the_video(
    video: Path, storage: list[int], tmp_path: Path
) -> None:
    other = tmp_path / "b.mp4"
    write_video(other, numbered_frames(FRAMES, 32, 48))
    dataset = random_dataset(video, other)
    storage += [errno.EIO] * 3
    (item,) = dataset.__getitems__([(0, 0)])
    assert [p.reason for p in item[3]["problems"]] == ["input/output error"]
    (item,) = dataset.__getitems__([(0, 1)])  # the next epoch reads it again
    assert item[3]["problems"] == []


@pytest.mark.usefixtures("storage")
def test_a_damaged_video_isnt_tried_again(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="damaged"):
        random_dataset(tmp_path / "c.mp4")[0, 0]


def test_an_error_keeps_its_number_between_processes() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "broken", errno.EIO)))
    assert (error.path, error.reason, error.errno) == ("a.mp4", "broken", errno.EIO)


@pytest.mark.parametrize("place", ["fifo", "link", "/dev/zero", "folder/frame_0.jpg"])
def test_what_is_no_file_isnt_waited_for(
    tmp_path: Path, place: str, make_fifo: Callable[[Path], None]
) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if not place.startswith("/"):
        make_fifo(path)
    if place == "link":
        path = tmp_path / "second"
        path.symlink_to(tmp_path / "link")
    asked = path.parent if place.startswith("folder") else path
    with pytest.raises(VideoError, match="not a regular file"):
        VideoReader()(str(asked), lambda n, fps: [RateSampler(2, 1).place(n, fps, (0, 1))])


def test_pictures_are_of_the_formats_of_their_suffix(tmp_path: Path) -> None:
    """PIL would run Ghostscript on an EPS, whatever its name."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps", "EPS")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(VideoError, match=r"a\.jpg: not a readable image"):
        read_image(tmp_path / "a.jpg")


def test_pictures_are_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90° to the right
    image.save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    assert upright.shape == (6, 4, 3)
    assert upright[0, 3].tolist() == [255] * 3


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (5, 4)).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}").shape == (4, 5, 3)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_full_frames_are_not_kept(
    video: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is cut as it comes, to the bit as from a clip of full frames."""
    if kind == "folder":
        folder = tmp_path / "frames"
        folder.mkdir()
        for i, frame in enumerate(decode.decode_all(video)):
            Image.fromarray(frame).save(folder / f"{i}.png")
    path = tmp_path / "frames" if kind == "folder" else video
    sampler, views = RateSampler(4, 1, placement="uniform"), ViewGrid(3, 3)
    transform = EvalTransform(16, 16, 3)
    dataset = VideoDataset([Record(str(path), 0)], sampler, transform, "test", views=views)
    full = VideoReader()(str(path), lambda n, fps: [sampler.place(n, fps, v) for v in views.clips])
    assert [clip.shape for clip in full.frames] == [(4, 32, 48, 3)] * 3
    expected = torch.cat([transform(clip) for clip in full.frames])
    kept: list[tuple[int, ...]] = []
    real = torch.stack

    def stack(tensors: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
        kept.extend(tuple(t.shape) for t in tensors)
        return real(tensors, dim)

    for module in (decode, frame_folder, reader):
        if hasattr(module, "torch"):
            monkeypatch.setattr(module.torch, "stack", stack)
    assert dataset[0][0].equal(expected)
    assert not any(32 in shape and 48 in shape for shape in kept)


def test_images_of_several_kinds_are_no_video(tmp_path: Path) -> None:
    """As denseflow leaves them: they were mixed, or taken twice."""
    for name in ("img_{}.jpg", "flow_x_{}.jpg"):
        for number in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name.format(number))
    with pytest.raises(VideoError, match=r"several kinds \((img|flow_x)_#\.jpg, "):
        list_frames(str(tmp_path))


TEN = [f"img_{number:05d}.jpg" for number in range(1, 11)]


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        # beside what a list names, other images count for nothing
        ([*TEN, "z5.jpg", "img_5.jpg"], Images(3, 5, TEN[2]), TEN[2:7]),
        (["cover.jpg", *TEN], Images(0, 10), r"several kinds \(img_#.jpg, cover.jpg\)"),
        ([*TEN, "thumbnail.png"], None, r"several kinds \(img_#.jpg, thumbnail.png\)"),
        ([*TEN, "img_00011.png"], None, "several kinds"),
        ([*TEN, "img_5.jpg"], None, "img_00005.jpg and img_5.jpg have the same number"),
        # a number of frames in a list
        ([*TEN[:5], *TEN[6:]], Images(2, 3), TEN[2:5]),
        ([*TEN[:5], *TEN[6:]], Images(2, 4), "image 6 isn't there, before img_00007.jpg: a list"),
        (TEN[2:], Images(0, 8), "first image is img_00003.jpg, not number 1: .*leave the number"),
        (TEN[2:], None, TEN[2:]),
        (["img_00000.jpg", *TEN], Images(4, 7), TEN[3:]),
        (["img_00000.jpg", *TEN], Images(4, 6), "img_00000.jpg may be the first image that counts"),
        (["1_1.jpg", "2_1.jpg"], Images(0, 2), "2_1.jpg isn't named as 1_1.jpg but for"),
        (["a.jpg", "b.jpg"], Images(0, 2), "a.jpg has no number"),
        (["b.jpg", "a.jpg"], None, ["a.jpg", "b.jpg"]),
        (TEN, Images(0, 11), "10 images, but its list says 11"),
    ],
)
def test_images_that_could_be_others_are_refused(
    tmp_path: Path, names: list[str], images: Images | None, expected: list[str] | str
) -> None:
    """Some programs go by the place of an image in its folder, others by the number in its name."""
    for name in names:
        (tmp_path / name).touch()
    if isinstance(expected, str):
        with pytest.raises(VideoError, match=expected):
            list_frames(str(tmp_path), images)
    else:
        assert list_frames(str(tmp_path), images) == expected
