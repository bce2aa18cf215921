"""A model that two ranks share (TRAIN.SHARDING fsdp), against two ranks that have a copy each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from children import finish, running
from small_run import small_cfg, stats
from test_within_epoch import RANDOM, Cut, same

from timesformer.config.defaults import get_cfg
from timesformer.engine import train as module
from timesformer.engine.sharding import is_shared, whole_models
from timesformer.engine.train import train
from timesformer.models.build import build_model
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_best,
    load_checkpoint,
    numbered_checkpoints,
    read_checkpoint,
)
from timesformer.utils.distributed import get_rank, launch
from timesformer.utils.errors import ConfigError

pytestmark = pytest.mark.dist

# Three steps of four forward passes, everything random, and three batches to validate.
OPTIONS: dict[str, Any] = RANDOM | {
    "TRAIN__BATCH_SIZE": 4,
    "TRAIN__CHECKPOINT_STEPS": 0,
    "SOLVER__MAX_EPOCH": 1,
    "SOLVER__WARMUP_EPOCHS": 0,
    "SOLVER__CLIP_GRAD_L2NORM": 0.5,
    "TRAIN__TRACE_STEPS": 2,
    "SOLVER__OPTIMIZING_METHOD": "sgd",
}
ADAMW = {"SOLVER__OPTIMIZING_METHOD": "adamw"}
FSDP, BF16 = {"TRAIN__SHARDING": "fsdp"}, {"TRAIN__GRAD_COMPRESSION": "bf16"}
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd_fsdp": FSDP,
    "adamw": ADAMW,
    "adamw_fsdp": ADAMW | FSDP | {"TIMESFORMER__ACT_CHECKPOINT": True},
    "bf16": BF16,
    "bf16_fsdp": BF16 | FSDP,
    "cut": ADAMW | FSDP | {"TRAIN__CHECKPOINT_STEPS": 1},
}


def clips() -> torch.Tensor:
    return torch.rand(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(3))


def train_all(data: Path, folder: Path) -> None:
    """Train them; of the shared one leave the logits that it gives, and whether it is shared."""

    def cut(*args: Any) -> Any:
        if args[3] == 2:
            raise Cut
        return real(*args)

    def work(cfg: Any) -> None:
        for name, options in RUNS.items():
            cfg = small_cfg(data, folder / name, **OPTIONS | options)
            if name == "cut":
                module.train_step = cut
                with pytest.raises(Cut):
                    train(cfg)
                module.train_step = real
            model = train(cfg)
            if name == "adamw_fsdp":
                assert is_shared(model)
                with whole_models([model]), torch.no_grad():
                    torch.save(model.eval()(clips()), folder / f"logits.{get_rank()}")
                own = sum(p.to_local().numel() for p in model.parameters())
                assert own < 0.6 * sum(p.numel() for p in model.parameters())

    real = module.train_step
    launch(small_cfg(data, folder, **OPTIONS), "unused", work)


@pytest.fixture(scope="module")
def runs(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the runs."""
    folder = tmp_path_factory.mktemp("runs")
    with running(train_all, synthetic_dir, folder, output=folder / "said", ranks=2) as ranks:
        assert finish(ranks, 200) == [0, 0], [rank.said[-3000:] for rank in ranks]
    return folder


def numbers(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, dict):
        found: dict[str, torch.Tensor] = {}
        for key, inner in value.items():
            found |= numbers(inner, f"{name}.{key}")
        return found
    return {name: value} if isinstance(value, torch.Tensor) else {}


def left(run: Path) -> dict[str, Any]:
    return read_checkpoint(get_last_checkpoint(run))


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_it_is_the_run_of_copies(runs: Path, method: str) -> None:
    """Weights, their average and what the optimizer gathers, in files of the same form."""
    copies, shared = left(runs / method), left(runs / f"{method}_fsdp")
    assert copies.keys() == shared.keys()
    expected, found = numbers(copies), numbers(shared)
    assert [*found] == [*expected]
    for name, value in expected.items():
        if method == "adamw" and name.endswith("attn.qkv.bias"):
            # The gradient of a key's bias is zero but for rounding, which Adam makes steps of.
            value, found[name] = (torch.cat([x[:24], x[48:]]) for x in (value, found[name]))
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)
    traced = (runs / f"{method}_fsdp" / "trace.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["weights"]) for line in traced] == 3 * [len(shared["model_state"])]
    for split in ("train_iter", "val"):
        losses = [[s["loss"] for s in stats(runs / f"{method}{x}", split)] for x in ("", "_fsdp")]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_shared_run_that_is_cut_goes_on_to_the_bit(runs: Path) -> None:
    straight, cut = left(runs / "adamw_fsdp"), left(runs / "cut")
    assert stats(runs / "cut", "start")[-1]["first_step"] == 3
    for key in ("model_state", "optimizer_state", "ema_state", "ema_updates", "epoch"):
        assert same(straight[key], cut[key]), key


@pytest.mark.parametrize("how", ["bf16", "bf16_fsdp"])
def test_compressed_gradients_are_off_by_less_than_a_hundredth(runs: Path, how: str) -> None:
    exact, rounded = (
        torch.cat(
            [value.flatten() for value in numbers(left(runs / run)["optimizer_state"]).values()]
        )
        for run in ("sgd", how)
    )
    assert 1e-4 < float((exact - rounded).norm() / exact.norm()) < 1e-2


def test_one_process_has_its_logits_and_goes_on(synthetic_dir: Path, runs: Path) -> None:
    run = runs / "adamw_fsdp"
    assert get_path_to_best(run).exists()
    options = OPTIONS | RUNS["adamw_fsdp"] | {"SOLVER__MAX_EPOCH": 2}
    cfg = small_cfg(synthetic_dir, run, **options)
    model = build_model(cfg).eval()
    load_checkpoint(get_last_checkpoint(run), model)
    with torch.no_grad():
        logits = model(clips())
    for rank in (0, 1):
        assert torch.equal(logits, torch.load(runs / f"logits.{rank}"))
    train(cfg)
    assert stats(run, "start")[-1]["first_epoch"] == 2
    assert len(numbered_checkpoints(run)) == 2


def test_a_model_without_blocks_is_refused() -> None:
    cfg = get_cfg()
    cfg.NUM_GPUS, cfg.MODEL.MODEL_NAME, cfg.TRAIN.SHARDING = 0, "slowfast_r50", "fsdp"
    with pytest.raises(ConfigError, match=r"TRAIN\.SHARDING fsdp .* slowfast_r50 has none"):
        build_model(cfg)
