"""A model that two ranks share (TRAIN.SHARDING fsdp), against two ranks that have a copy each."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from children import command, finish, running
from small_run import small_cfg, stats
from test_within_epoch import RANDOM, Cut, same

import timesformer
from timesformer.config.defaults import get_cfg
from timesformer.engine import state
from timesformer.engine import train as module
from timesformer.engine.sharding import is_shared, whole_models
from timesformer.engine.train import train
from timesformer.models.build import build_model
from timesformer.models.vit import TimeSformer
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_best,
    get_path_to_checkpoint,
    load_checkpoint,
    numbered_checkpoints,
    read_checkpoint,
)
from timesformer.utils.distributed import get_rank
from timesformer.utils.errors import ConfigError
from timesformer.utils.sharded_file import write_parts
from timesformer.utils.starting import launch

pytestmark = pytest.mark.dist

# Three steps of two forward passes, everything random, and three batches to validate.
OPTIONS: dict[str, Any] = RANDOM | {
    "GLOBAL_BATCH_SIZE": 8,
    "TRAIN__BATCH_SIZE": 4,
    "DATA__NUM_SAMPLES": 1,
    "TRAIN__CHECKPOINT_STEPS": 0,
    "SOLVER__MAX_EPOCH": 1,
    "SOLVER__WARMUP_EPOCHS": 0,
    "SOLVER__CLIP_GRAD_L2NORM": 0.5,
    "TRAIN__TRACE_STEPS": 2,
    "SOLVER__OPTIMIZING_METHOD": "sgd",
}
ADAMW = {"SOLVER__OPTIMIZING_METHOD": "adamw"}
FSDP, BF16 = {"TRAIN__SHARDING": "fsdp"}, {"TRAIN__GRAD_COMPRESSION": "bf16"}
LORA = {"TRAIN__FREEZE": "*, !temporal_fc, !head", "LORA__RANK": 2, "EMA__ENABLED": False}
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd_fsdp": FSDP,
    "adamw": ADAMW,
    "adamw_fsdp": ADAMW | FSDP | {"TIMESFORMER__ACT_CHECKPOINT": True},
    "lora": ADAMW | LORA,
    "lora_fsdp": ADAMW | LORA | FSDP,
    "bf16": BF16,
    "bf16_fsdp": BF16 | FSDP,
    "parts": ADAMW | FSDP | {"TRAIN__CHECKPOINT_STEPS": 1, "TRAIN__SHARDED_CHECKPOINTS": True},
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
            if name == "parts":
                module.train_step = cut
                state.write_parts = full_once
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

    def full_once(path: Path, payload: Any) -> None:
        """The disk is full, for one rank, when the first checkpoint is to be written."""
        state.write_parts = write_parts

        def fsync(descriptor: int) -> None:
            if get_rank() == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(descriptor)

        os.fsync, sync = fsync, os.fsync
        try:
            write_parts(path, payload)
        finally:
            os.fsync = sync

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


@pytest.mark.parametrize("method", ["sgd", "adamw", "lora"])
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
    straight, cut = left(runs / "adamw_fsdp"), left(runs / "parts")
    assert stats(runs / "parts", "start")[-1]["first_step"] == 3
    for key in ("model_state", "optimizer_state", "ema_state", "ema_updates", "epoch"):
        assert same(straight[key], cut[key]), key
    assert straight.keys() == cut.keys()
    names = [path.name for path in numbered_checkpoints(runs / "parts")]
    assert names == ["checkpoint_epoch_00001", "checkpoint_epoch_00000_step_0000002"]
    assert sorted(path.name for path in (runs / "parts" / "checkpoints").iterdir()) == sorted(
        [*names, "checkpoint_best.pyth"]
    )


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


def test_torchs_own_reader_reads_the_parts(runs: Path) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    newest = get_last_checkpoint(runs / "parts")
    expected = {f"model_state.{k}": v for k, v in read_checkpoint(newest)["model_state"].items()}
    found = {name: torch.empty_like(value) for name, value in expected.items()}
    with pytest.warns(UserWarning, match="single process"):
        checkpoint.load(found, storage_reader=HuggingFaceStorageReader(str(newest)), no_dist=True)
    assert same(found, expected)


def test_what_is_made_of_the_parts_has_the_logits(runs: Path, tmp_path: Path) -> None:
    parts, logits = get_last_checkpoint(runs / "parts"), torch.load(runs / "logits.0")
    sources = [parts, runs / "parts"]
    for to, name in (("native", "full.pyth"), ("safetensors", "folder")):
        command("convert", [str(parts), str(tmp_path / name), "--to", to])
        sources.append(tmp_path / name)
    for source in sources:
        model = TimeSformer.from_pretrained(source).eval()
        with torch.no_grad():
            assert torch.equal(model(clips()), logits), source


def test_a_config_and_a_test_are_taken_from_the_parts(runs: Path, tmp_path: Path) -> None:
    parts = get_last_checkpoint(runs / "parts")
    words = ["--cfg", str(parts), "OUTPUT_DIR", str(tmp_path), "TEST.SAVE_RESULTS_PATH", ""]
    command("test", words)
    (line,) = stats(tmp_path, "test_final")
    assert line["checkpoint"] == str(parts)


def test_parts_are_inspected_as_a_file_is(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = get_last_checkpoint(runs / "parts")
    command("inspect-checkpoint", [str(parts)])
    assert "sound, SHA-256 " in capsys.readouterr().out
    copy = shutil.copytree(parts, tmp_path / "copy")
    next(copy.glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        command("inspect-checkpoint", [str(copy)])
    assert end.value.code == 1


def test_a_disk_that_is_full_for_a_moment_is_trained_through(runs: Path) -> None:
    """The first checkpoint, of a step, couldn't be written; those that follow could."""
    said = (runs / "parts" / "run.log").read_text()
    assert "can't write the checkpoint (No space left on device)" in said
    assert "step_0000001: can't write" in said
    assert "training goes on (TRAIN.ON_FAILED_SAVE)" in said


def test_a_run_goes_on_from_the_parts_before(
    synthetic_dir: Path, runs: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs / "parts", tmp_path / "run"))
    part = next(get_last_checkpoint(run).glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1])
    train(small_cfg(synthetic_dir, run, **OPTIONS | RUNS["parts"]))
    assert f"damaged (the digest of {part.name} doesn't match it)" in (run / "run.log").read_text()
    assert stats(run, "start")[-1]["first_step"] == 3
    assert get_last_checkpoint(run) == get_path_to_checkpoint(run, 1)
    assert not part.parent.exists()  # one process writes a file in its place


def test_a_model_without_blocks_is_refused() -> None:
    cfg = get_cfg()
    cfg.NUM_GPUS, cfg.MODEL.MODEL_NAME, cfg.TRAIN.SHARDING = 0, "slowfast_r50", "fsdp"
    with pytest.raises(ConfigError, match=r"TRAIN\.SHARDING fsdp .* slowfast_r50 has none"):
        build_model(cfg)


def test_sharded_checkpoints_need_shards(synthetic_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set TRAIN\.SHARDING fsdp"):
        small_cfg(synthetic_dir, tmp_path, TRAIN__SHARDED_CHECKPOINTS=True)


@pytest.mark.slow
def test_an_exported_file_of_the_parts_has_the_logits(runs: Path, tmp_path: Path) -> None:
    parts = get_last_checkpoint(runs / "parts")
    command("convert", [str(parts), str(tmp_path / "full.pyth"), "--to", "native"])
    found = []
    for source in (parts, tmp_path / "full.pyth"):
        path = tmp_path / f"{source.stem}.pt2"
        words = ["--checkpoint", str(source), "--to", "torch-export", "--out", str(path)]
        command("export", words)
        pixels = 255 * clips()
        found.append(timesformer.load(path).model(pixels))
    assert torch.equal(*found)
    model = timesformer.load(parts).model
    with torch.no_grad():
        torch.testing.assert_close(found[0], model(model.normalize(pixels)), atol=1e-5, rtol=0)
