"""Videos in shards: read as the files that they were, and what becomes of damage."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_layouts import write_pictures, write_ssv2_frames, write_tiny
from shard_fixtures import pack
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import RateSampler
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.lists.records import Images
from timesformer.datasets.video.byte_range import ByteRange
from timesformer.datasets.video.decode import decode_all
from timesformer.datasets.video.file import open_video
from timesformer.datasets.video.probe import probe
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.shard_contents import MANIFEST
from timesformer.datasets.video.shards import Member, Shards, open_shards
from timesformer.utils.errors import ShardsError, VideoError

FILES = ("a.mp4", "b/c d.avi", "b/é.webm", "raw.mp4", "b/long " + 110 * "x" + ".mp4", "frames")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of every kind of index, in names that tars store in every way."""
    root = tmp_path_factory.mktemp("files")
    (root / "b").mkdir()
    write_video(root / "a.mp4", numbered_frames(40), options={"g": "4"})
    write_tiny(root / "b" / "c d.avi", 20)
    write_tiny(root / "b" / "é.webm", 20)
    write_video(root / "raw.h264", numbered_frames(20)).rename(root / "raw.mp4")  # for the suffix
    times = [2 * i + i % 2 for i in range(20)]
    write_video(root / FILES[4], numbered_frames(20), times=times)
    write_pictures(root / "frames", 10)
    return root


@pytest.fixture(scope="module")
def shards(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return pack(files, tmp_path_factory.mktemp("shards") / "out")


@pytest.fixture
def copy(shards: Shards, tmp_path: Path) -> Path:
    """The same shards, to damage."""
    return shutil.copytree(shards.root, tmp_path / "copy")


def test_others_read_the_tars(files: Path, shards: Shards, tmp_path: Path) -> None:
    for tar in sorted(Path(shards.root).glob("*.tar")):
        with tarfile.open(tar, "r:") as opened:
            opened.extractall(tmp_path, filter="data")
            count = len(opened.getnames())
        listed = subprocess.run(["tar", "tf", tar], capture_output=True, check=True).stdout
        assert len(listed.splitlines()) == count
    names = [path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()]
    assert sorted(m.name for m in shards.members()) == sorted(names)
    for member in shards.members():
        content = (files / member.name).read_bytes()
        assert (tmp_path / member.name).read_bytes() == member.read() == content
        assert member.entry.digest == hashlib.sha256(content).hexdigest()
        member.check()


@pytest.mark.parametrize("backend", ["pyav", "torchcodec"])
@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_files(files: Path, shards: Shards, name: str, backend: str) -> None:
    sampler = RateSampler(4, 2, 30.0)
    read = VideoReader(backend), VideoReader(backend, shards=pickle.loads(pickle.dumps(shards)))
    clips = []
    for reader, root in zip(read, (files, shards.root), strict=True):
        path, rng = f"{root}/b/../{name}", np.random.default_rng(3)
        assert reader.length(path) == read[0].length(str(files / name))
        assert reader.is_folder(path) == (name == "frames") == (not reader.is_file(path))
        place = lambda n, fps, rng=rng: [  # noqa: E731
            sampler.place(n, fps, None, rng), sampler.place(n, fps, (2, 3))
        ]  # fmt: skip
        clips.append(reader(path, place))
    assert clips[0].damage == clips[1].damage
    assert all(map(torch.equal, clips[0].frames, clips[1].frames))


def test_whole_videos_and_what_they_say_of_themselves(files: Path, shards: Shards) -> None:
    for name in ("a.mp4", "b/c d.avi"):
        member = shards.find(f"{shards.root}/{name}")
        assert isinstance(member, Member)
        assert probe(member) == probe(files / name)
        pairs = zip(decode_all(member), decode_all(files / name), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)


def test_images_of_a_folder(shards: Shards) -> None:
    read, folder = VideoReader(shards=shards), f"{shards.root}/frames"
    sampler = RateSampler(2, 1, 30.0)
    clips = read(folder, lambda n, fps: [sampler.place(n, fps, (0, 1))], (), Images(2, 3))
    assert clips.frames[0].shape[0] == 2
    with pytest.raises(VideoError, match="10 images, but its list says 12"):
        read.length(folder, Images(2, 10))
    with pytest.raises(VideoError, match="a file, but its list says"):
        read(f"{shards.root}/a.mp4", lambda n, fps: [], (), Images(2, 10))


def test_only_what_is_below_the_folder_is_looked_up(files: Path, shards: Shards) -> None:
    read = VideoReader(shards=shards)
    assert read.find(str(files / "a.mp4")) == str(files / "a.mp4")
    assert read.find(f"{shards.root}-2/a.mp4") == f"{shards.root}-2/a.mp4"
    (Path(shards.root) / "beside.mp4").touch()
    for name in ("beside.mp4", "a.mp", "a.mp4x", "b/c", "~", "A.mp4", "a.mp4\t0", "b\0"):
        with pytest.raises(VideoError, match=r"not in the shards' index|NUL"):
            read.find(f"{shards.root}/{name}")
        assert not read.is_file(f"{shards.root}/{name}")


def broken(copy: Path, name: str = "a.mp4") -> VideoError:
    """What reading a video of shards that were opened before they were damaged complains of."""
    shards = Shards(str(copy), open_shards_unchecked(copy))
    with pytest.raises(VideoError) as caught:
        VideoReader(shards=shards)(f"{copy}/{name}", lambda n, fps: [])
    assert caught.value.path == f"{copy}/shard-000000.tar!{name}"
    return caught.value


def open_shards_unchecked(folder: Path):
    from timesformer.datasets.video.shard_contents import Contents

    return Contents.of_json((folder / MANIFEST).read_bytes(), MANIFEST)


def test_a_tar_that_is_cut_short(copy: Path) -> None:
    tar = copy / "shard-000000.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:2000])
    with pytest.raises(ShardsError, match=r"shard-000000.tar: 2,000 bytes, where shards.json says"):
        open_shards(str(copy))
    assert broken(copy).reason == "its shard ends after 2,000 bytes, before this file does"
    tar.write_bytes(content[:100])
    assert "another file there" in broken(copy).reason


def test_a_tar_that_is_missing_or_another_one(copy: Path) -> None:
    tar = copy / "shard-000000.tar"
    size = tar.stat().st_size
    other = (copy / "shard-000001.tar").read_bytes()
    tar.write_bytes(other[:size].ljust(size, b"\0"))
    open_shards(str(copy))
    assert broken(copy).reason == "its shard has another file there than the index says"
    tar.unlink()
    assert broken(copy).errno == errno.ENOENT
    (copy / "shard-000001.tar").unlink()
    with pytest.raises(ShardsError, match=r"shard-000000.tar: no such file.*\(and 1 more\): copy"):
        open_shards(str(copy))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"format": 1', '"format": 2'), "shards of format 2, this"),
        (lambda text: text[:50], "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: text.replace("shard-000001.tar", "../x.tar"), "damaged"),
    ],
)
def test_another_description(copy: Path, change: Callable[[str], str], said: str) -> None:
    manifest = copy / MANIFEST
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(ShardsError, match=said):
        open_shards(str(copy))


def test_an_index_that_is_damaged(copy: Path) -> None:
    index = next(copy.glob("index-*.tsv"))
    content = index.read_bytes()
    index.write_bytes(content.replace(b"a.mp4\t0\t512", b"a.mp4\t0\t5_2"))
    with pytest.raises(VideoError, match=r"a.mp4: .*index-.* byte 0: damaged"):
        VideoReader(shards=open_shards(str(copy))).length(f"{copy}/a.mp4")
    index.write_bytes(content[:-10])
    with pytest.raises(ShardsError, match=r"index-.*bytes, where shards.json says"):
        open_shards(str(copy))


def test_bytes_that_changed(copy: Path) -> None:
    tar = copy / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    content[5000] ^= 1
    tar.write_bytes(content)
    shards = open_shards(str(copy))
    assert shards
    with pytest.raises(VideoError, match=r"shard-000000.tar!a.mp4: its SHA-256 isn't"):
        shards.find(f"{copy}/a.mp4").check()


def test_shards_that_arent_finished(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(ShardsError, match="aren't finished: run"):
        open_shards(str(tmp_path))
    (tmp_path / "unfinished").rmdir()
    assert open_shards(str(tmp_path)) is None
    assert open_shards("") is None


def test_storage_that_fails_is_not_the_end_of_a_video(files: Path, shards: Shards) -> None:
    """FFmpeg takes some failed reads for the end of the file."""
    content = (files / "b" / "é.webm").read_bytes()
    for good in range(0, len(content), 1500):

        def fetch(start: int, end: int, good: int = good) -> bytes:
            if end > good:
                raise OSError(errno.ETIMEDOUT, "storage fails")
            return content[start:end]

        member = shards.find(f"{shards.root}/b/é.webm")
        opened = ByteRange("é.webm", len(content), fetch, lambda: None)
        broken = type("Broken", (Member,), {"open": lambda self, opened=opened: opened})
        with pytest.raises(VideoError, match="storage fails") as caught:
            list(decode_all(broken(member.shards, member.name, member.entry)))
        assert caught.value.errno == errno.ETIMEDOUT


def test_a_playlist_leads_nowhere(files: Path, tmp_path: Path) -> None:
    text = f"ffconcat version 1.0\nfile '{files / 'a.mp4'}'\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.mp4").write_text(text)
    shards = pack(tmp_path / "in", tmp_path / "out")
    with pytest.raises(VideoError):
        list(decode_all(shards.find(f"{shards.root}/list.mp4")))


def test_a_reader_closes_what_it_opens(shards: Shards) -> None:
    member = shards.find(f"{shards.root}/a.mp4")
    assert isinstance(member, Member)
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir())) if fds.is_dir() else 0
    for _ in range(3):
        with open_video(member):
            pass
    assert not fds.is_dir() or len(list(fds.iterdir())) <= before


def test_something_something_finds_its_videos_in_shards(tmp_path: Path) -> None:
    options = write_ssv2_frames(tmp_path / "in")
    pack(tmp_path / "in" / "frames", tmp_path / "out")
    items = []
    for prefix in (options["DATA.PATH_PREFIX"], tmp_path / "out"):
        cfg = get_cfg()
        cfg.merge_from_list(
            [str(w) for pair in (options | {"DATA.PATH_PREFIX": prefix}).items() for w in pair]
        )
        cfg.MODEL.NUM_CLASSES, cfg.DATA.RANDOM_FLIP = 174, False
        cfg.TEST.NUM_ENSEMBLE_VIEWS = 1
        items.append(build_dataset("ssv2", cfg, "train")[3])
    assert torch.equal(items[0][0], items[1][0])
    assert items[0][1] == items[1][1]
    assert json.dumps(items[0][2]) == json.dumps(items[1][2])
