"""A folder for each class: what is a video, how it is split, and what can be wrong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from dataset_layouts import write_folder
from fvcore.common.config import CfgNode

from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.catalogue import video_folder
from timesformer.datasets.catalogue.video_folder import split_videos
from timesformer.utils.errors import ConfigError

MODES = ("train", "val", "test")


def make_cfg(root: Path | str, classes: int = 2, names: str = "") -> CfgNode:
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES = str(root), classes
    cfg.DATA.CLASS_NAMES, cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE = names, 4, 4
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 40]
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    return cfg


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path, mode: str, **options: object) -> set[tuple[str, object]]:
    dataset = build_dataset("videofolder", make_cfg(root, **options), mode)
    return {(Path(r.path).relative_to(root).as_posix(), r.label) for r in dataset.records}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the data set logs."""
    messages: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(
            video_folder.logger,
            level,
            lambda text, *args, level=level: messages.append(f"{level}: {text % args}"),
        )
    return messages


def test_one_folder(tmp_path: Path, lines: list[str]) -> None:
    write_folder(tmp_path)
    splits = {mode: found(tmp_path, mode) for mode in MODES}
    every = splits["train"] | splits["val"] | splits["test"]
    assert sum(map(len, splits.values())) == len(every) == 12  # nothing twice
    assert {name for name, label in every if label == 1} == {
        *("run/clip 0.mp4", "run/clip 1.avi", "run/clip 2.webm", "run/clip 3.mp4"),
        *("run/more/deep.MP4", "run/frames"),
    }
    for mode in MODES:
        assert {label for _, label in splits[mode]} == {0, 1}
    assert "8 videos of 2 classes for train (train split); 2 files that are no videos" in lines[0]
    dataset = build_dataset("videofolder", make_cfg(tmp_path), "train")
    assert dataset.class_names == ("jump", "run")
    assert {dataset[i][0].shape for i in range(8)} == {(3, 4, 32, 32)}


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.01, 0.5, 0.49), (0.98, 0.01, 0.01)])
def test_every_split_of_three_videos_or_more_has_one(shares: tuple[float, ...]) -> None:
    for n in range(3, 60):
        videos = [f"{i}.mp4" for i in range(n)]
        splits = split_videos({"a": videos}, shares)
        parts = [splits[mode]["a"] for mode in MODES]
        assert sorted(itertools.chain(*parts)) == sorted(videos)
        assert min(map(len, parts)) >= 1
        for part, share in zip(parts, shares, strict=True):
            assert abs(len(part) - n * share) <= 2


def test_few_videos_and_empty_splits() -> None:
    def counts(n: int, shares: tuple[float, ...]) -> list[int]:
        splits = split_videos({"a": [str(i) for i in range(n)]}, shares)
        return [len(splits[mode]["a"]) for mode in MODES]

    assert [counts(n, (0.8, 0.1, 0.1)) for n in (0, 1, 2)] == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert counts(10, (0.8, 0.2, 0)) == [8, 2, 0]
    assert counts(10, (0.8, 0, 0.2)) == [8, 0, 2]
    assert counts(10, (1, 0, 0)) == [10, 0, 0]


def test_a_split_depends_on_names_alone() -> None:
    videos = [f"clip é {i}.mp4" for i in range(20)]
    shares = (0.6, 0.2, 0.2)
    alone = split_videos({"a": videos}, shares)
    other = split_videos({"b": ["x"], "a": videos[::-1]}, shares)
    assert all(other[mode]["a"] == alone[mode]["a"] for mode in MODES)
    decomposed = [video.replace("é", "e\u0301") for video in videos]
    there = split_videos({"a": decomposed}, shares)["val"]["a"]
    assert sorted(v.replace("e\u0301", "é") for v in there) == sorted(alone["val"]["a"])
    # Not the order of names; and the same for ever, or runs couldn't be compared.
    assert split_videos({"a": list("abcdefghij")}, shares)["val"]["a"] == ["a", "h"]


def test_folders_train_val_test(tmp_path: Path, lines: list[str]) -> None:
    touch(tmp_path, "train/b/1.mp4", "train/a/2.MKV", "val/b/3.mp4", "val/c/deep/er/4.mp4")
    assert found(tmp_path, "train", classes=3) == {("train/a/2.MKV", 0), ("train/b/1.mp4", 1)}
    val = {("val/b/3.mp4", 1), ("val/c/deep/er/4.mp4", 2)}  # c has no videos to train on
    assert found(tmp_path, "val", classes=3) == val
    lines.clear()
    assert found(tmp_path, "test", classes=3) == val
    assert lines[0].startswith("warning: ")
    assert "has no videos for test; those for val stand in, so that val and test are" in lines[0]
    (tmp_path / "val").rename(tmp_path / "test")
    assert {label for _, label in found(tmp_path, "val", classes=3)} == {1, 2}
    (tmp_path / "test").rename(tmp_path / "other")
    with pytest.raises(ConfigError, match="has no videos for val or test"):
        found(tmp_path, "val", classes=2)


def test_two_videos_a_class_are_no_test_of_their_own(tmp_path: Path, lines: list[str]) -> None:
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in "ab" for i in range(2)))
    splits = {mode: found(tmp_path, mode) for mode in MODES}
    assert [len(splits[mode]) for mode in MODES] == [2, 2, 2]
    assert splits["val"] == splits["test"] != splits["train"]
    (warning,) = (line for line in lines if line.startswith("warning: "))
    assert "val and test are the same videos" in warning


def test_what_is_a_video(tmp_path: Path, lines: list[str]) -> None:
    touch(
        tmp_path,
        *("train/a/1.mp4", "train/a/1.jpg", "train/a/.2.mp4", "train/a/.cache/3.mp4"),
        *("train/a/frames/1.jpg", "train/a/frames/2.jpg", "train/a/frames/list.txt"),
        *("train/a/mixed/4.webm", "train/a/mixed/4.jpg", "train/.hidden/5.mp4", "train/README.md"),
    )
    expected = {("train/a/1.mp4", 0), ("train/a/frames", 0), ("train/a/mixed/4.webm", 0)}
    assert found(tmp_path, "train", classes=1) == expected
    assert "3 videos of 1 class for train (train split); 3 files" in lines[-1]


def test_labels_in_the_order_of_class_names(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/1.mp4")
    (tmp_path / "names.txt").write_text("c\nb\na\n")
    names = str(tmp_path / "names.txt")
    assert found(tmp_path, "train", classes=3, names=names) == {("train/b/1.mp4", 1)}
    touch(tmp_path, "train/d/1.mp4")
    with pytest.raises(ConfigError, match=r"DATA.CLASS_NAMES has no 'd'"):
        found(tmp_path, "train", classes=3, names=names)


def test_folders_without_videos_are_no_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(
        video_folder.logger, "warning", lambda text, *args: warnings.append(text % args)
    )
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "__MACOSX/a/._1.mp4", ".cache/3.mp4", "notes/read.txt")
    (tmp_path / "empty").mkdir()
    files = {path for mode in ("train",) for path, _ in found(tmp_path, mode)}
    assert files == {"a/1.mp4", "b/2.mp4"}
    assert warnings == [
        f"{tmp_path}: 4 folders are hidden or have no videos, so they are no classes: .cache, "
        "__MACOSX, empty, notes"
    ]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATA\.PATH_TO_DATA_DIR is empty"):
        build_dataset("videofolder", make_cfg(""), "train")
    with pytest.raises(ConfigError, match=r"DATA\.PATH_TO_DATA_DIR: there is no folder '/.*where'"):
        build_dataset("videofolder", make_cfg(tmp_path / "nowhere"), "train")
    with pytest.raises(ConfigError, match="must have folders of videos, one for each class"):
        found(tmp_path, "train")
    touch(tmp_path, *(f"{name}/1.mp4" for name in "abcd"))
    with pytest.raises(ConfigError, match=r"4 classes \(a, b, c, …\): set MODEL.NUM_CLASSES 4"):
        found(tmp_path, "train")
    with pytest.raises(ConfigError, match="has no videos for val or test"):
        found(tmp_path, "test", classes=4)  # one video a class: all of them train


@pytest.mark.parametrize("name", ["videofoldr", "VideoFolders", "video_folder"])
def test_a_name_that_is_nearly_right(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"TRAIN.DATASET .*; did you mean VideoFolder\?"):
        build_dataset(name, make_cfg(tmp_path), "train")
