"""What one of two ranks meets alone, both end with: no rank goes on, and none waits."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from children import finish, running
from small_run import small_cfg, stats
from torch import nn

from timesformer.clips.augment import ClipAugment
from timesformer.datasets.loader import construct_loader
from timesformer.datasets.video_dataset import REPLACED, Problem
from timesformer.engine import step as step_module
from timesformer.engine import train as train_module
from timesformer.engine.optimizer import construct_optimizer
from timesformer.engine.start import load_train_checkpoint
from timesformer.engine.train import train
from timesformer.models.build import build_model
from timesformer.utils.checkpoint import get_last_checkpoint
from timesformer.utils.distributed import from_main, get_rank, together
from timesformer.utils.errors import TrainingError, UserError
from timesformer.utils.starting import launch

pytestmark = pytest.mark.dist

ONE = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0, "TRAIN__EVAL_PERIOD": 0}


def raised(work: Any) -> str:
    try:
        work()
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def one_fails() -> str:
    def work() -> int:
        if get_rank() == 1:
            raise UserError("no such file")
        return 7

    return raised(lambda: together(work))


def decided_by_main() -> str:
    return str(from_main(f"by {get_rank()}"))


def starts(data: Path, output: str) -> str:
    cfg = small_cfg(data, Path(output), **ONE)
    model = build_model(cfg)
    optimizer = construct_optimizer(model, cfg)
    return raised(lambda: load_train_checkpoint(cfg, model, optimizer))


def nan_gradient(data: Path, step: int) -> str:
    """The gradient of one weight is NaN on rank 1, after the ranks have exchanged theirs."""
    built: list[nn.Module] = []
    steps = iter(range(100))
    real_model, real_clip = train_module.build_model, step_module.clip_gradients

    def spoil(state: Any) -> torch.Tensor:
        if next(steps) == step and get_rank() == 1:
            next(p for p in state.model.parameters() if p.grad is not None).grad.fill_(torch.nan)
        return real_clip(state)

    train_module.build_model = lambda cfg: built.append(real_model(cfg)) or built[-1]
    step_module.clip_gradients = spoil
    try:
        message = raised(lambda: train(small_cfg(data, Path("nan"), **ONE, TEST__ENABLE=False)))
    finally:
        train_module.build_model, step_module.clip_gradients = real_model, real_clip
    assert all(p.isfinite().all() for p in built[0].parameters())
    assert get_last_checkpoint("nan") is None
    return message


def nan_clip(data: Path, policy: str) -> str:
    """Row 5's clip is spoilt in the first step; says the weights in the end, and what was left out.

    A rank alone has it, and the gradient of both is spoilt.
    """
    real = ClipAugment.__call__

    def augment(self: Any, pixels: Any, index: Any, view: Any, epoch: int) -> Any:
        inputs = real(self, pixels, index, view, epoch)
        inputs[index == 5] = torch.nan
        return inputs

    built: list[nn.Module] = []
    real_model = train_module.build_model
    train_module.build_model = lambda cfg: built.append(real_model(cfg)) or built[-1]
    ClipAugment.__call__ = augment  # type: ignore[method-assign]
    options = ONE | {"TEST__ENABLE": False, "TRAIN__NONFINITE": policy}
    try:
        message = raised(lambda: train(small_cfg(data, Path(policy), **options)))
    finally:
        train_module.build_model = real_model
        ClipAugment.__call__ = real  # type: ignore[method-assign]
    if not message:
        message = " ".join(
            f"{float(p.detach().double().sum()):.17g}" for p in built[0].parameters()
        )
    return message


def unreadable_videos(data: Path) -> str:
    """Rank 1 alone replaces more videos than a run may, in its first step."""
    real = step_module.clip_gradients

    def meet(state: Any) -> torch.Tensor:
        if get_rank() == 1:
            state.broken.add(Problem(i, f"{i}.mp4", "", "bad", REPLACED) for i in range(9))
        return real(state)

    step_module.clip_gradients = meet
    try:
        return raised(lambda: train(small_cfg(data, Path("bad"), **ONE, TEST__ENABLE=False)))
    finally:
        step_module.clip_gradients = real


def another_order(data: Path, folder: Path) -> str:
    """Rank 1 has the same videos in another order."""
    if get_rank() == 1:
        data = folder / "reversed"
    return raised(lambda: train(small_cfg(data, Path("order"), **ONE, TEST__ENABLE=False)))


def another_config(data: Path) -> str:
    options = ONE | {"SOLVER__BASE_LR": 0.1 + get_rank()}
    return raised(lambda: train(small_cfg(data, Path("config"), **options)))


def list_of_one_node(data: Path) -> str:
    path = data if get_rank() == 0 else data / "nowhere"
    cfg = small_cfg(path, Path("x"), **ONE)
    return raised(lambda: together(lambda: construct_loader(cfg, "train")))


def half_of_the_videos(data: Path) -> str:
    """The share of this rank, whose seed and order of the list are its own."""
    folder = Path("half")
    folder.mkdir()
    rows = (data / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join(rows[:: -1 if get_rank() else 1]) + "\n")
    shutil.copy(data / "classes.txt", folder)
    cfg = small_cfg(folder, Path("x"), **ONE, DATA__FRACTION=0.5, RNG_SEED=get_rank())
    records = construct_loader(cfg, "train").dataset.records
    return " ".join(sorted(Path(record.path).name for record in records))


def meet(data: Path, folder: Path) -> None:
    """Meet them all, and write what was raised where this rank is."""

    def work(cfg: Any) -> None:
        os.chdir(folder / str(get_rank()))  # a relative OUTPUT_DIR isn't shared then
        found = {
            "fails": one_fails(),
            "decides": decided_by_main(),
            "other weights": starts(data, "other"),
            "no weights": starts(data, "missing"),
            "first step": nan_gradient(data, 0),
            "middle step": nan_gradient(data, 1),
            "last step": nan_gradient(data, 2),
            "clip": nan_clip(data, "raise"),
            "skipped": nan_clip(data, "skip"),
            "videos": unreadable_videos(data),
            "list": list_of_one_node(data),
            "order": another_order(data, folder),
            "config": another_config(data),
            "half": half_of_the_videos(data),
        }
        Path("found.json").write_text(json.dumps(found))

    launch(small_cfg(data, folder, NUM_GPUS=0), "unused", work)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has a folder for each rank."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(synthetic_dir: Path, folder: Path) -> list[dict[str, str]]:
    """What each rank found."""
    for number in (0, 1):
        options = ONE | {"SOLVER__BASE_LR": 1e-3 * (number + 1)}
        train(small_cfg(synthetic_dir, folder / str(number) / "other", **options))
    train(small_cfg(synthetic_dir, folder / "0" / "missing", **ONE))
    shutil.copytree(synthetic_dir, folder / "reversed")
    rows = (synthetic_dir / "train.csv").read_text().splitlines()
    (folder / "reversed" / "train.csv").write_text("\n".join(reversed(rows)) + "\n")
    with running(meet, synthetic_dir, folder, output=folder / "said", ranks=2) as ranks:
        assert finish(ranks, 120) == [0, 0], [rank.said[-3000:] for rank in ranks]
    return [json.loads((folder / str(i) / "found.json").read_text()) for i in (0, 1)]


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("fails", "UserError: no such file"),
        ("other weights", "other weights than rank 0: OUTPUT_DIR"),
        ("no weights", "can't read the checkpoint"),
        ("first step", "TrainingError: the gradient is not finite, though the loss is in epoch 1"),
        ("middle step", "TrainingError: the gradient is not finite, though the loss is in epoch 1"),
        ("last step", "TrainingError: the gradient is not finite, though the loss is in epoch 1"),
        ("clip", "(rows [5] of the training list: "),
        ("videos", "AnnotationError: 9 of 24 train videos can't be read"),
        ("list", "nowhere"),
        ("order", "rank 1 has another list of training videos than rank 0"),
        ("config", "SOLVER.BASE_LR is 0.1 on rank 0 and 1.1 on rank 1"),
    ],
)
def test_both_complain(two: list[dict[str, str]], case: str, complaint: str) -> None:
    for found in two:
        assert complaint in found[case]


def test_ranks_take_the_same_share_of_the_videos(two: list[dict[str, str]]) -> None:
    shares = [found["half"].split() for found in two]
    assert shares[0] == shares[1]
    assert len(set(shares[0])) == 12


def test_both_leave_a_step_out(two: list[dict[str, str]], folder: Path) -> None:
    sums = [found["skipped"].split() for found in two]
    assert sums[0] == sums[1]
    assert all(math.isfinite(float(number)) for number in sums[0])
    (line,) = stats(folder / "0" / "skip", "train_epoch")
    assert line["skipped_steps"] == 1


def test_the_main_process_decides(two: list[dict[str, str]]) -> None:
    assert [found["decides"] for found in two] == ["by 0", "by 0"]


def test_a_step_beyond_all_numbers_is_neither_saved_nor_tested(
    synthetic_dir: Path, tmp_path: Path
) -> None:
    """The last step makes infinite weights of finite gradients: no loss shows it any more."""
    options = ONE | {"GLOBAL_BATCH_SIZE": 24, "TRAIN__BATCH_SIZE": 24, "SOLVER__BASE_LR": 1e38}
    with pytest.raises(TrainingError, match=r"not finite after epoch 1 .*SOLVER\.BASE_LR"):
        train(small_cfg(synthetic_dir, tmp_path, **options))
    assert get_last_checkpoint(tmp_path) is None


def test_an_optimizer_state_beyond_all_numbers_is_not_saved(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of 1e30 are finite and so are their steps, but not their squares."""

    def large(state: Any) -> torch.Tensor:
        next(p for p in state.model.parameters() if p.grad is not None).grad.fill_(1e30)
        return torch.tensor(1.0)

    monkeypatch.setattr(step_module, "clip_gradients", large)
    with pytest.raises(TrainingError, match="the first is the optimizer's exp_avg_sq of "):
        train(small_cfg(synthetic_dir, tmp_path, **ONE))
    assert get_last_checkpoint(tmp_path) is None
