"""The list of videos that a run couldn't read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from timesformer.datasets.video_dataset import FAILED, REPLACED, USED, Problem
from timesformer.engine.broken import BrokenVideos
from timesformer.utils.errors import AnnotationError


def problem(record: int, treatment: str = REPLACED, path: str = "") -> Problem:
    return Problem(record, path or f"{record}.mp4", f"train.csv, line {record}", "bad", treatment)


def rows(output: Path) -> list[list[str]]:
    with (output / "broken_videos.csv").open(newline="", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_each_video_is_told_and_listed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = BrokenVideos(tmp_path, "train", 100, 0.05)
    for _ in range(3):
        broken.add([problem(7), problem(3, USED)])
    assert caplog.messages == [
        "7.mp4 (train.csv, line 7): bad; replaced by another video",
        "3.mp4 (train.csv, line 3): bad; used as decoded",
    ]
    assert broken.failed == [7]
    broken.start_over()
    assert broken.failed == []
    broken.add([problem(7), problem(3, USED)])
    assert len(caplog.messages) == 2
    broken.gather()
    assert rows(tmp_path) == [
        ["split", "path", "where", "reason", "treatment"],
        ["train", "3.mp4", "train.csv, line 3", "bad", USED],
        ["train", "7.mp4", "train.csv, line 7", "bad", REPLACED],
    ]


def stop(broken: BrokenVideos, *problems: Problem) -> None:
    """What a step of one rank does."""
    broken.add(problems)
    broken.check(broken.take_new())


def test_a_damaged_video_may_turn_out_to_be_unreadable(tmp_path: Path) -> None:
    broken = BrokenVideos(tmp_path, "train", 100)
    broken.add([problem(3, USED)])
    broken.add([problem(3, REPLACED)])
    broken.add([problem(3, USED)])
    assert broken.failed == [3]


def test_too_many_are_too_many(tmp_path: Path) -> None:
    broken = BrokenVideos(tmp_path, "train", 80, 0.05)
    for _ in range(2):  # nor does a video twice
        stop(broken, *[problem(i) for i in range(1, 5)])  # 5 %
    stop(broken, problem(5, USED))  # damaged ones don't count
    with pytest.raises(AnnotationError, match=r"5 of 80 train videos .*MAX_FAILED \(5 %.*1\.mp4"):
        stop(broken, problem(6))
    assert len(rows(tmp_path)) == 7


def test_a_small_data_set_may_have_a_few_unless_none_are_allowed(tmp_path: Path) -> None:
    stop(BrokenVideos(tmp_path, "train", 17, 0.05), problem(1), problem(2), problem(3))
    with pytest.raises(AnnotationError, match=r"4 of 17 .*MAX_FAILED \(5 %\)"):
        stop(BrokenVideos(tmp_path, "train", 17, 0.05), *[problem(i) for i in range(4)])
    with pytest.raises(AnnotationError, match="1 of 17"):
        stop(BrokenVideos(tmp_path, "train", 17, 0.0), problem(1))


def test_lists_of_other_splits_and_former_runs_are_kept(tmp_path: Path) -> None:
    train = BrokenVideos(tmp_path, "train", 100)
    train.add([problem(1)])
    train.gather()
    test = BrokenVideos(tmp_path, "test", 100)
    test.add([problem(5, FAILED, "a, b \udcff.mp4")])
    test.gather()
    resumed = BrokenVideos(tmp_path, "train", 100)
    resumed.add([problem(2)])
    resumed.gather()
    assert [row[:2] for row in rows(tmp_path)[1:]] == [
        ["test", "a, b \udcff.mp4"],
        ["train", "1.mp4"],
        ["train", "2.mp4"],
    ]
    BrokenVideos(tmp_path, "test", 100).gather()  # repaired
    assert [row[0] for row in rows(tmp_path)[1:]] == ["train", "train"]


def test_no_list_without_problems(tmp_path: Path) -> None:
    BrokenVideos(tmp_path, "train", 100).gather()
    assert not list(tmp_path.iterdir())
