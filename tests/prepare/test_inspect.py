"""What is found out about the files of a data set, missing, broken or linked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from dataset_layouts import write_multi_label, write_pictures, write_tiny

from timesformer.clips.sampling import RateSampler, SegmentSampler
from timesformer.clips.transform import EvalTransform
from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.datasets.lists.records import Images, Records
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.inspect import (
    BROKEN,
    MISSING,
    InspectOptions,
    SplitReport,
    VideoReport,
    read_splits,
)
from timesformer.utils.errors import AnnotationError, ConfigError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("video") / "a.mp4", 50, 25)


def test_a_sound_video(video: Path) -> None:
    for decode in (False, True):
        report = InspectOptions(decode)(str(video))
        assert (report.kind, report.fps, report.short_side) == ("", 25.0, 48)
        assert report.duration == pytest.approx(2.0)
        assert not report.outside


def test_a_folder_of_frames(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", 12)
    report = InspectOptions(frames_fps=10.0)(str(folder))
    assert (report.kind, report.fps, report.short_side, report.duration) == ("", 10.0, 48, 1.2)
    (folder / "frames_000007.jpg").write_bytes(b"no picture")
    assert InspectOptions(decode=True)(str(folder)).kind == BROKEN
    for decode in (False, True):  # without the bad one
        inspect = InspectOptions(decode, frames_fps=10.0)
        assert inspect(str(folder), Images(7, 5)).duration == 0.5
        assert inspect.of_record((str(folder), Images(7, 6))).kind == BROKEN


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    (tmp_path / "dead.mp4").symlink_to("nothing")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    inspect = InspectOptions()
    assert inspect(str(tmp_path / "gone.mp4"))[2:4] == (MISSING, "no such file")
    assert inspect(str(tmp_path / "dead.mp4"))[2:4] == (MISSING, "a symbolic link to nothing")
    assert inspect(str(tmp_path / "text.mp4")).kind == BROKEN
    assert inspect(str(tmp_path / "empty")).kind == BROKEN
    crashed = inspect.crashed(str(tmp_path / "text.mp4"))
    assert crashed.kind == BROKEN
    assert "crashes" in crashed.reason


@pytest.mark.parametrize("fault", ["hole", "cut"])
def test_only_decoding_finds_damage_in_the_middle(video: Path, tmp_path: Path, fault: str) -> None:
    content = bytearray(video.read_bytes())
    media = content.find(b"mdat")
    size = int.from_bytes(content[media - 4 : media], "big")
    hole = slice(media + size // 2, media + size * 3 // 4)
    content[hole] = bytes(hole.stop - hole.start)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    if fault == "cut":
        path = write_tiny(tmp_path / "damaged.webm", 60)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert InspectOptions(decode=True)(str(path)).kind == BROKEN
    if fault == "hole":
        assert InspectOptions()(str(path)).kind == ""


def test_links_that_leave_the_folder(video: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    shutil.copy(video, inside / "a.mp4")
    (inside / "in.mp4").symlink_to(inside / "a.mp4")
    (inside / "out.mp4").symlink_to(video)
    (tmp_path / "link").symlink_to(inside)
    for root in (inside, tmp_path / "link"):
        inspect = InspectOptions(root=str(root))
        outside = {name: inspect(str(root / f"{name}.mp4")).outside for name in ("a", "in", "out")}
        assert outside == {"a": False, "in": False, "out": True}
    assert not InspectOptions()(str(inside / "out.mp4")).outside


def test_copies_and_links_are_the_same_video(video: Path, tmp_path: Path) -> None:
    shutil.copy(video, tmp_path / "copy.mp4")
    (tmp_path / "link.mp4").symlink_to(video)
    other = write_tiny(tmp_path / "other.mp4", 50, 25, seed=1)
    same = [InspectOptions()(str(tmp_path / f"{name}.mp4")).same for name in ("copy", "link")]
    assert same == [InspectOptions()(str(video)).same] * 2
    assert InspectOptions()(str(other)).same != same[0]


def make_dataset(rows: Sequence, sampler: RateSampler | SegmentSampler, multi: bool = False):
    records = Records("train.csv", multi)
    for line, (path, label, start, end) in enumerate(rows, 1):
        records.append(path, label, line=line, start=start, end=end)
    return VideoDataset(records, sampler, EvalTransform(32, 32, 1), "val")


def test_split_report() -> None:
    """A clip spans 2 s; the second video has them, but not the part that the record is."""
    rows = [("a", 2, 0, None), ("b", 0, 0, None), ("b", 2, 10, 50), ("c", 2, 0, None)]
    seconds = {"a": 1.9, "b": 2.0, "c": 0.0}
    videos = [
        VideoReport(p, p, BROKEN if p == "c" else "", fps=25.0, duration=seconds[p])
        for p, *_ in rows
    ]
    report = SplitReport("train", make_dataset(rows, RateSampler(10, 6)), videos, 4)
    assert report.class_counts.tolist() == [1, 0, 3, 0]
    assert report.clip_seconds == 2.0
    assert report.shorter_than_a_clip == 2
    assert report.values("duration").tolist() == [1.9, 2.0, 2.0]
    assert report.where(2) == "train.csv, line 3"
    report = SplitReport("train", make_dataset(rows, SegmentSampler(10)), videos, 4)
    assert (report.clip_seconds, report.shorter_than_a_clip) == (0.0, 0)


def test_classes_of_videos_with_several_labels() -> None:
    rows = [("a", (0, 2), 0, None), ("b", (2,), 0, None)]
    dataset = make_dataset(rows, RateSampler(8, 1), multi=True)
    report = SplitReport("val", dataset, [VideoReport(x, x) for x in "ab"], 3)
    assert report.class_counts.tolist() == [1, 0, 2]


def multi_label_cfg(root: Path) -> CfgNode:
    root.mkdir()
    options = write_multi_label(root) | {"DATA.CLASS_NAMES": ""}
    cfg = get_cfg()
    cfg.merge_from_list([str(word) for pair in options.items() for word in pair])
    return cfg


def test_splits_without_a_list_are_named(tmp_path: Path) -> None:
    cfg = multi_label_cfg(tmp_path / "data")
    assert list(read_splits(cfg, ["val"])[0]) == ["val"]
    (tmp_path / "data" / "test.csv").unlink()
    datasets, unreadable = read_splits(cfg)
    assert list(datasets) == ["train", "val"]
    assert "test.csv" in unreadable["test"]
    with pytest.raises(AnnotationError, match=r"test.csv"):
        read_splits(cfg, ["test"])
    cfg.TRAIN.DATASET = "nothing"
    with pytest.raises(ConfigError, match=r"TRAIN.DATASET"):
        read_splits(cfg, ["train"])
