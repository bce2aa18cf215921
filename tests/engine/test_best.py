"""Which checkpoints are kept, which is the best, and when a run stops by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_cfg, stats

from timesformer.commands.run import run
from timesformer.engine import train as module
from timesformer.engine.results import Results
from timesformer.engine.resume import list_digest
from timesformer.engine.train import train
from timesformer.utils.checkpoint import (
    get_path_to_best,
    get_path_to_checkpoint,
    numbered_checkpoints,
    prune_checkpoints,
    read_checkpoint,
)
from timesformer.utils.errors import ConfigError, WeightsError

OPTIONS = {"SOLVER__MAX_EPOCH": 5, "SOLVER__WARMUP_EPOCHS": 0}


@pytest.fixture
def validations(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Says which top-1 the coming validations give."""
    results: list[float | None] = []

    def eval_epoch(cfg: Any, model: Any, loader: Any, epoch: int, *_: Any) -> dict[str, Any]:
        line = {"split": "val", "epoch": f"{epoch + 1}/{cfg.SOLVER.MAX_EPOCH}"}
        line |= {"top1_acc": results.pop(0), "top5_acc": 0.0, "loss": 0.0}
        line["list"] = list_digest(loader.dataset.records)[:12]
        module.log_json_stats(line, cfg.OUTPUT_DIR)
        return line

    monkeypatch.setattr(module, "eval_epoch", eval_epoch)
    return results


def names(folder: Path) -> list[str]:
    return [path.name[-6:-5] for path in numbered_checkpoints(folder)]


def test_the_newest_and_the_best_are_kept(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    validations += [10.0, 50.0, 50.0, None, 20.0]
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS, TRAIN__KEEP_CHECKPOINTS=2))
    assert names(tmp_path) == ["5", "4"]
    best = read_checkpoint(get_path_to_best(tmp_path))
    assert best["validation"].items() >= {"epoch": 1, "top1_acc": 50.0}.items()
    assert best["epoch"] == 1


def test_all_are_kept(synthetic_dir: Path, tmp_path: Path, validations: list[float | None]) -> None:
    validations += [0.0] * 5
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS, TRAIN__KEEP_CHECKPOINTS=0))
    assert names(tmp_path) == ["5", "4", "3", "2", "1"]


def test_a_run_stops_early_and_stays_stopped(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    options = OPTIONS | {"SOLVER__EARLY_STOP_EPOCHS": 2, "TRAIN__CHECKPOINT_PERIOD": 3}
    validations += [10.0, 50.0, 40.0, 50.0]
    train(small_cfg(synthetic_dir, tmp_path, **options))
    assert names(tmp_path) == ["4", "3"]
    said = "none of the last 2 was better than epoch 2"
    assert (tmp_path / "run.log").read_text().count(said) == 1
    train(small_cfg(synthetic_dir, tmp_path, **options))  # validates and trains no more
    assert len(stats(tmp_path, "train_epoch")) == 4


def test_epochs_that_werent_validated_dont_stop_a_run(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    """Patience of 1 with a validation every other epoch: the next one has to be waited for."""
    options = OPTIONS | {"SOLVER__EARLY_STOP_EPOCHS": 1, "TRAIN__EVAL_PERIOD": 2}
    validations += [50.0, 40.0, 60.0]
    train(small_cfg(synthetic_dir, tmp_path, **options))
    assert [line["epoch"] for line in stats(tmp_path, "val")] == ["2/5", "4/5"]
    assert len(stats(tmp_path, "train_epoch")) == 4


def test_damaged_files_of_later_epochs_arent_what_is_kept(tmp_path: Path) -> None:
    """A run that fell back from them has saved epoch 2 again."""
    for epoch in (1, 2, 3):
        path = get_path_to_checkpoint(tmp_path, epoch)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    prune_checkpoints(tmp_path, 1, get_path_to_checkpoint(tmp_path, 2))
    assert names(tmp_path) == ["3", "2"]


def test_a_run_that_goes_on_knows_its_best(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    validations += [50.0, 40.0, 60.0]
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS | {"SOLVER__MAX_EPOCH": 2}))
    before = get_path_to_best(tmp_path).read_bytes()
    options = OPTIONS | {"SOLVER__MAX_EPOCH": 3}
    validations[:] = [49.0]
    train(small_cfg(synthetic_dir, tmp_path, **options))
    assert get_path_to_best(tmp_path).read_bytes() == before


def test_what_another_validation_list_gave_doesnt_count(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    """Neither the best file nor the last line in stats.jsonl: the epoch is validated again."""
    data, run_dir = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for path in synthetic_dir.iterdir():
        (data / path.name).symlink_to(path)
    options = OPTIONS | {"SOLVER__MAX_EPOCH": 1}
    validations += [50.0, 40.0]
    train(small_cfg(data, run_dir, **options))
    best = get_path_to_best(run_dir)
    assert len(read_checkpoint(best)["validation"]["list"]) == 64
    lines = (data / "val.csv").read_text().splitlines(keepends=True)
    (data / "val.csv").unlink()
    (data / "val.csv").write_text("".join(lines[:-1]))
    train(small_cfg(data, run_dir, **options))
    assert validations == []
    assert read_checkpoint(best)["validation"]["top1_acc"] == 40.0
    assert "the best on another validation list" in (run_dir / "run.log").read_text()


def test_what_a_run_made_after_the_place_it_falls_back_to_is_forgotten(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    """Epoch 2 was the best, and is trained again otherwise, cut before it could be validated."""
    validations += [10.0, 50.0]
    options = OPTIONS | {"SOLVER__MAX_EPOCH": 2}
    train(small_cfg(synthetic_dir, tmp_path, **options))
    get_path_to_checkpoint(tmp_path, 2).unlink()
    with pytest.raises(IndexError):  # no validation left
        train(small_cfg(synthetic_dir, tmp_path, **options, SOLVER__WEIGHT_DECAY=0.5))
    assert names(tmp_path) == ["2", "1"]
    assert read_checkpoint(get_path_to_best(tmp_path))["validation"]["epoch"] == 0
    validations += [20.0]
    train(small_cfg(synthetic_dir, tmp_path, **options, SOLVER__WEIGHT_DECAY=0.5))
    assert validations == []
    best, last = map(
        read_checkpoint, (get_path_to_best(tmp_path), get_path_to_checkpoint(tmp_path, 2))
    )
    assert best["validation"]["top1_acc"] == 20.0
    assert all(torch.equal(x, last["model_state"][k]) for k, x in best["model_state"].items())
    assert "the best of what was trained after epoch 1" in (tmp_path / "run.log").read_text()


def test_scores_that_are_not_finite_are_no_best(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Results.overflowed
    monkeypatch.setattr(Results, "overflowed", property(lambda self: self.paths[:2]))
    options = OPTIONS | {"SOLVER__MAX_EPOCH": 1}
    train(small_cfg(synthetic_dir, tmp_path, **options))
    assert stats(tmp_path, "val")[0]["overflowed_videos"] == 2
    assert not get_path_to_best(tmp_path).exists()
    monkeypatch.setattr(Results, "overflowed", real)
    scores = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [torch.inf, 0.0], [torch.nan] * 2])
    failed = torch.tensor([False, False, False, True])
    assert Results(None, scores, torch.zeros(4), list("abcd"), failed).overflowed == ["b", "c"]


def test_the_best_is_tested_on_request(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    validations += [50.0, 40.0]
    options = OPTIONS | {"SOLVER__MAX_EPOCH": 2}
    run(small_cfg(synthetic_dir, tmp_path, **options, TEST__CHECKPOINT="best"))
    assert stats(tmp_path, "test_final")[0]["checkpoint"].endswith("checkpoint_best.pyth")
    run(small_cfg(synthetic_dir, tmp_path, **options))
    assert stats(tmp_path, "test_final")[1]["checkpoint"].endswith("epoch_00002.pyth")
    with pytest.raises(WeightsError, match=r"TEST\.CHECKPOINT best: .* isn't there"):
        run(
            small_cfg(
                synthetic_dir, tmp_path / "none", TRAIN__ENABLE=False, TEST__CHECKPOINT="best"
            )
        )


@pytest.mark.parametrize("key", ["SOLVER__EARLY_STOP_EPOCHS", "TEST__CHECKPOINT"])
def test_what_needs_validation_says_so(synthetic_dir: Path, tmp_path: Path, key: str) -> None:
    value = 2 if "EARLY" in key else "best"
    with pytest.raises(ConfigError, match=r"TRAIN\.EVAL_PERIOD 0"):
        small_cfg(synthetic_dir, tmp_path, TRAIN__EVAL_PERIOD=0, **{key: value})


def test_a_run_that_starts_over_isnt_mixed_with_the_former(
    synthetic_dir: Path, tmp_path: Path, validations: list[float | None]
) -> None:
    validations += [90.0, 0.0, 0.0]
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS | {"SOLVER__MAX_EPOCH": 3}))
    validations += [10.0]
    options = OPTIONS | {"SOLVER__MAX_EPOCH": 1, "RNG_SEED": 1}
    run(small_cfg(synthetic_dir, tmp_path, **options, TRAIN__AUTO_RESUME=False))
    assert names(tmp_path) == ["1"]
    assert read_checkpoint(get_path_to_best(tmp_path))["validation"]["top1_acc"] == 10.0
    aside = tmp_path / "checkpoints" / "before_1"
    assert len(list(aside.iterdir())) == 4
    assert str(aside) in (tmp_path / "run.log").read_text()
    assert stats(tmp_path, "test_final")[0]["checkpoint"].endswith("epoch_00001.pyth")
    validations += [20.0]
    train(small_cfg(synthetic_dir, tmp_path, **options | {"SOLVER__MAX_EPOCH": 2}))
    assert stats(tmp_path, "start")[-1]["first_epoch"] == 2
