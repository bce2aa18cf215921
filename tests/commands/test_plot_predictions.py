"""`timesformer plot-predictions`: what it needs beside the scores, and what it takes for scores."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import RECIPE, complaint_of, small_cfg

from timesformer.commands.plot_predictions import main, videos_of
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_given_videos, build_video_split
from timesformer.datasets.lists.records import Images, Record
from timesformer.engine.results import Results, save_results


@pytest.fixture(scope="module")
def tested(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test of 12 videos that never was; its config still names a checkpoint."""
    folder = tmp_path_factory.mktemp("tested")
    gone = folder / "gone.pyth"
    gone.touch()
    options: dict[str, Any] = {"NUM_GPUS": 0, "TEST__CHECKPOINT_FILE_PATH": gone}
    cfg = small_cfg(synthetic_dir, folder, TRAIN__ENABLE=False, **options)
    gone.unlink()
    dataset = build_video_split(cfg, "test")
    logits = torch.randn(len(dataset), 2, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([record.label for record in dataset.records])
    paths = [record.path for record in dataset.records]
    failed = torch.zeros(len(dataset), dtype=torch.bool)
    results = Results(logits, logits.sum(1), labels, paths, failed, 2)
    for name in ("scores.npz", "scores.csv"):
        save_results(folder / name, results, dataset.class_names, "sum", config=cfg.dump())
    return folder


@pytest.fixture(scope="module")
def old(tested: Path) -> Path:
    """Scores as a former version wrote them."""
    with np.load(tested / "scores.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "config"}
    np.savez(tested / "old.npz", **kept)
    return tested / "old.npz"


def test_scores_are_enough(tested: Path, tmp_path: Path) -> None:
    words = ["--results", tested / "scores.npz", "--output", tmp_path / "new" / "a.png"]
    main([str(word) for word in [*words, "--gif", tmp_path / "a.gif", "--clips", "3"]])
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a.gif", "a.png"]
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4


def test_old_scores_ask_for_the_recipe_alone(old: Path, tmp_path: Path) -> None:
    words = ["--results", old, "--output", tmp_path / "a.png", "--clips", "2"]
    assert complaint_of(main, *words) == (
        f"error: {old}: doesn't say what config was tested; give it as --cfg FILE\n"
    )
    main([str(word) for word in [*words, "--cfg", RECIPE]])  # no DATA.PATH_TO_DATA_DIR
    assert (tmp_path / "a.png").is_file()


def test_videos_that_are_gone(old: Path, tmp_path: Path) -> None:
    with np.load(old) as arrays:
        moved = dict(arrays)
    moved["paths"] = np.array([os.path.basename(path) for path in moved["paths"]])  # noqa: PTH119
    np.savez(tmp_path / "moved.npz", **moved)
    said = complaint_of(
        main, "--cfg", RECIPE, "--results", tmp_path / "moved.npz", "--output", tmp_path / "a.png"
    )
    assert ".mp4: not there; " in said
    assert "run this where the test ran" in said
    assert not (tmp_path / "a.png").exists()


def test_a_table_is_not_scores(tested: Path, tmp_path: Path) -> None:
    said = complaint_of(main, "--results", tested / "scores.csv", "--output", tmp_path / "a.png")
    assert said == (
        f"error: {tested}/scores.csv: a table for people; give the .npz that "
        "TEST.SAVE_RESULTS_PATH scores.npz writes\n"
    )


def test_no_video_to_draw(tested: Path, tmp_path: Path) -> None:
    with np.load(tested / "scores.npz") as arrays:
        failed = dict(arrays) | {"failed": np.ones(12, bool)}
    np.savez(tmp_path / "failed.npz", **failed)
    words = ["--results", tmp_path / "failed.npz", "--output", tmp_path / "a.png"]
    assert "the test could read none of the videos" in complaint_of(main, *words)
    assert "--clips 0: must be 1 or more" in complaint_of(main, *words, "--clips", "0")


@pytest.mark.parametrize("dataset", ["synthetic", "kinetics", "ssv2", "diving48"])
def test_given_videos_give_the_clips_of_their_data_set(dataset: str, synthetic_dir: Path) -> None:
    options: dict[str, Any] = {"NUM_GPUS": 0, "TEST__DATASET": dataset, "DATA__NUM_FRAMES": 4}
    cfg = small_cfg(synthetic_dir, synthetic_dir, **options)
    (video, *_) = sorted(synthetic_dir.rglob("*.mp4"))
    found = build_given_videos(cfg, [Record(str(video), 0)])
    kinds = {"ssv2": "SegmentSampler", "synthetic": type(found.sampler).__name__}
    assert type(found.sampler).__name__ == kinds.get(dataset, "RateSampler")
    if dataset == "synthetic":
        lists = build_video_split(cfg, "test")
        given = build_given_videos(cfg, lists.records)
        assert given[3][0].equal(lists[3][0])


def test_parts_of_videos_need_their_lists(tmp_path: Path, tested: Path) -> None:
    words = ["--results", tested / "scores.npz", "--output", tmp_path / "a.png"]
    said = complaint_of(
        main, *words, "DATA.TRIM_TO_SEGMENT", "True", "DATA.PATH_TO_DATA_DIR", tmp_path
    )
    assert f"{tmp_path}/test.csv: not there yet" in said


def test_folders_of_frames_need_their_lists(tmp_path: Path) -> None:
    """The test saw the first two images; a picture of all would be of another video."""
    (tmp_path / "a").mkdir()
    (tmp_path / "test.csv").write_text("a 2 1\n")
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR = cfg.DATA.PATH_PREFIX = str(tmp_path)
    tested = SimpleNamespace(paths=np.array([f"{tmp_path}/a"]), labels=np.array([1]))
    assert videos_of(tested, cfg).records[0] == Record(f"{tmp_path}/a", 1, images=Images(0, 2))
    tested.paths = np.array([f"{tmp_path}/gone.mp4"])
    assert videos_of(tested, cfg).records[0] == Record(f"{tmp_path}/gone.mp4", 1)
