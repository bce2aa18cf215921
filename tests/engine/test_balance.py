"""Classes with few videos: runs with all that helps them, cut and gone on with; what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_cfg, stats

from timesformer.engine.train import train
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

ROUND = {
    "TRAIN__CLASS_BALANCE": 1.0,
    "MODEL__CLASS_WEIGHTS": 0.5,
    "AUG__RANDOM_ERASING": 0.5,
    "TEST__ENABLE": False,
}


@pytest.fixture(scope="module")
def imbalanced(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic with 1, 2, 3, 4, 0 and 4 training videos of its six classes; paths absolute."""
    folder = tmp_path_factory.mktemp("imbalanced")
    for split in ("train", "val", "test"):
        rows = (synthetic_dir / f"{split}.csv").read_text().splitlines()
        if split == "train":
            limits = {"0": 1, "1": 2, "2": 3, "4": 0}
            by_class: dict[str, list[str]] = {}
            for row in rows:
                by_class.setdefault(row.rpartition(" ")[2], []).append(row)
            rows = [row for k, some in by_class.items() for row in some[: limits.get(k, 4)]]
        (folder / f"{split}.csv").write_text("".join(f"{row}\n" for row in rows))
    (folder / "classes.txt").write_text((synthetic_dir / "classes.txt").read_text())
    for entry in synthetic_dir.iterdir():
        if entry.is_dir():
            (folder / entry.name).symlink_to(entry)
    return folder


def state_of(folder: Path) -> dict[str, Any]:
    return read_checkpoint(get_last_checkpoint(folder))


def test_cut_and_gone_on_with_it_is_the_straight_run(imbalanced: Path, tmp_path: Path) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    train(small_cfg(imbalanced, straight, **ROUND, SOLVER__MAX_EPOCH=3))
    train(small_cfg(imbalanced, cut, **ROUND, SOLVER__MAX_EPOCH=3))
    for epoch in (2, 3):
        (cut / "checkpoints" / f"checkpoint_epoch_0000{epoch}.pyth").unlink()
    train(small_cfg(imbalanced, cut, **ROUND, SOLVER__MAX_EPOCH=3))
    assert stats(cut, "start")[-1]["first_epoch"] == 2
    one, other = state_of(straight)["model_state"], state_of(cut)["model_state"]
    assert all(torch.equal(one[key], other[key]) for key in one)
    said = (straight / "run.log").read_text()
    for line in (
        "TRAIN.CLASS_BALANCE 1: an epoch draws class 3 (4 videos) 3 times, class 0 (1 video) 3",
        "MODEL.CLASS_WEIGHTS 0.5: the weight of class 3 (4 videos) is 0.8",
        "that of class 0 (1 video) 1.",
        "make up for rare classes twice, which count for more than frequent ones",
        "the training list: classes without a video, 1: ",
    ):
        assert line in said
    (start,) = stats(straight, "start")
    assert start["videos_per_class"] == {"min": 1, "median": 3, "max": 4}
    val = stats(straight, "val")[-1]
    assert 0 <= val["mean_class_acc"] <= 100
    assert val["classes"] == 6


def test_accumulation_is_one_large_batch(imbalanced: Path, tmp_path: Path) -> None:
    """The weights of a batch's clips say nothing of how large its part of a step is."""
    options = ROUND | {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0, "GLOBAL_BATCH_SIZE": 12}
    options |= {"TIMESFORMER__DROP_PATH_RATE": 0.0, "SOLVER__OPTIMIZING_METHOD": "sgd"}
    options |= {"TRAIN__BATCH_SIZE": 12, "TRAIN__EVAL_PERIOD": 0}
    train(small_cfg(imbalanced, tmp_path / "whole", **options))
    train(small_cfg(imbalanced, tmp_path / "parts", **options | {"TRAIN__BATCH_SIZE": 6}))
    train(small_cfg(imbalanced, tmp_path / "plain", **options | {"MODEL__CLASS_WEIGHTS": 0}))
    whole, parts = (state_of(tmp_path / name)["model_state"] for name in ("whole", "parts"))
    (one,), (other,) = (stats(tmp_path / name, "train_iter") for name in ("whole", "parts"))
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    (plain,) = stats(tmp_path / "plain", "train_iter")
    assert plain["top1_err"] == one["top1_err"]  # the same clips
    assert abs(plain["loss"] - one["loss"]) > 0.01
    for name, weights in whole.items():
        torch.testing.assert_close(weights, parts[name], atol=1e-6, rtol=1e-4)
