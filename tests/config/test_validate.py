"""Every check of the merged config: what it lets through, and that it names the key to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from timesformer.config.defaults import get_cfg
from timesformer.config.layout import BatchLayout, batch_layout, ranks
from timesformer.config.node import CfgNode
from timesformer.config.validate import check, check_devices
from timesformer.utils.errors import ConfigError

# A config that passes all checks and is easy to break: CPU, 8 clips a pass, 16 a step.
BASE = "NUM_GPUS 0 TRAIN.BATCH_SIZE 8 GLOBAL_BATCH_SIZE 16"


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def make(overrides: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list(f"{BASE} {overrides}".split())
    return cfg


# (overrides, fragments of the message; the first is a key to change)
BAD = [
    ("TRAIN.ENABLE False TEST.ENABLE False", ["TRAIN.ENABLE", "nothing to do"]),
    ("DATA.MULTI_LABEL True", ["MODEL.LOSS_FUNC", "several labels need bce"]),
    # names, with the nearest
    ("DIST_BACKEND glo", ["DIST_BACKEND", "did you mean gloo?"]),
    ("TRAIN.AMP bf61", ["TRAIN.AMP", "did you mean bf16?"]),
    ("TEST.AMP half", ["TEST.AMP", "none, bf16, fp16"]),
    ("DATA.TEST_CLIP_SAMPLING centre", ["DATA.TEST_CLIP_SAMPLING", "did you mean center?"]),
    ("DATA.ENSEMBLE_METHOD SUM", ["DATA.ENSEMBLE_METHOD", "did you mean sum?"]),
    ("TIMESFORMER.POS_EMBED_RESIZE cubic", ["TIMESFORMER.POS_EMBED_RESIZE", "bicubic"]),
    ("TIMESFORMER.INIT images", ["TIMESFORMER.INIT", "did you mean image?"]),
    ("MODEL.LOSS_FUNC bce", ["MODEL.LOSS_FUNC", "cross_entropy"]),
    ("SOLVER.LR_POLICY cosin", ["SOLVER.LR_POLICY", "did you mean cosine?"]),
    ("SOLVER.OPTIMIZING_METHOD adamW", ["SOLVER.OPTIMIZING_METHOD", "did you mean adamw?"]),
    # ranges
    *[
        (f"{key} 0", [key, "at least 1"])
        for key in (
            "NUM_SHARDS",
            "LOG_PERIOD",
            "TRAIN.BATCH_SIZE",
            "TRAIN.CHECKPOINT_PERIOD",
            "TEST.BATCH_SIZE",
            "TEST.NUM_ENSEMBLE_VIEWS",
            "DATA.NUM_FRAMES",
            "DATA.SAMPLING_RATE",
            "DATA.TRAIN_CROP_SIZE",
            "DATA.TEST_CROP_SIZE",
            "TIMESFORMER.PATCH_SIZE",
            "TIMESFORMER.EMBED_DIM",
            "TIMESFORMER.NUM_HEADS",
            "MODEL.NUM_CLASSES",
            "SOLVER.MAX_EPOCH",
        )
    ],
    *[
        (f"TIMESFORMER.DEPTH {depth}", ["TIMESFORMER.DEPTH", "from 1 to 1,000"])
        for depth in (0, 1_000_000)
    ],
    *[
        (f"{key} -1", [key, "at least 0"])
        for key in (
            "NUM_GPUS",
            "RNG_SEED",
            "GLOBAL_BATCH_SIZE",
            "SOLVER.COSINE_END_LR",
            "SOLVER.WARMUP_EPOCHS",
            "SOLVER.WARMUP_START_LR",
            "SOLVER.WEIGHT_DECAY",
            "SOLVER.CLIP_GRAD_L2NORM",
            "MIXUP.ALPHA",
            "MIXUP.CUTMIX_ALPHA",
        )
    ],
    ("DATA_LOADER.NUM_WORKERS -2", ["DATA_LOADER.NUM_WORKERS", "at least 0, or auto"]),
    ("DATA.TARGET_FPS 0", ["DATA.TARGET_FPS", "above 0"]),
    ("TIMESFORMER.MLP_RATIO 0", ["TIMESFORMER.MLP_RATIO", "above 0"]),
    ("SOLVER.BASE_LR 0", ["SOLVER.BASE_LR", "above 0"]),
    ("SOLVER.LRS [1,-1,0]", ["SOLVER.LRS", "at least 0"]),
    ("DATA.FRACTION 0", ["DATA.FRACTION", "above 0 and at most 1"]),
    ("DATA.FRACTION 25", ["DATA.FRACTION", "above 0 and at most 1"]),
    ("TRAIN.CLASS_BALANCE 2", ["TRAIN.CLASS_BALANCE", "between 0 and 1"]),
    ("MODEL.CLASS_WEIGHTS -1", ["MODEL.CLASS_WEIGHTS", "between 0 and 1"]),
    (
        "TRAIN.CLASS_BALANCE 1 DATA.MULTI_LABEL True MODEL.LOSS_FUNC bce",
        ["TRAIN.CLASS_BALANCE", "MODEL.CLASS_WEIGHTS works with several labels"],
    ),
    ("MIXUP.PROB 1.1", ["MIXUP.PROB", "between 0 and 1"]),
    ("MIXUP.SWITCH_PROB -0.1", ["MIXUP.SWITCH_PROB", "between 0 and 1"]),
    ("SOLVER.DAMPENING 2", ["SOLVER.DAMPENING", "between 0 and 1"]),
    ("TIMESFORMER.DROP_PATH_RATE 1", ["TIMESFORMER.DROP_PATH_RATE", "below 1"]),
    ("SOLVER.MOMENTUM 1", ["SOLVER.MOMENTUM", "below 1"]),
    ("SOLVER.LABEL_SMOOTHING 1", ["SOLVER.LABEL_SMOOTHING", "below 1"]),
    # processes and batches
    ("SHARD_ID 1", ["SHARD_ID 1", "NUM_SHARDS"]),
    ("NUM_SHARDS 2 SHARD_ID -1", ["SHARD_ID"]),
    ("DIST_BACKEND nccl", ["DIST_BACKEND", "NUM_GPUS"]),
    ("TRAIN.AMP fp16", ["TRAIN.AMP", "GPU"]),
    ("TEST.AMP fp16", ["TEST.AMP", "GPU"]),
    ("NUM_GPUS 3", ["TRAIN.BATCH_SIZE 8", "nearest: 6 or 9"]),
    ("NUM_GPUS 16 TRAIN.ENABLE False", ["TEST.BATCH_SIZE 8", "nearest: 16"]),
    ("GLOBAL_BATCH_SIZE 60", ["GLOBAL_BATCH_SIZE 60", "nearest: 56 or 64"]),
    ("GLOBAL_BATCH_SIZE 4", ["GLOBAL_BATCH_SIZE 4", "nearest: 8"]),
    ("NUM_SHARDS 3", ["GLOBAL_BATCH_SIZE 16", "24 clips", "nearest: 24"]),
    # model and data
    ("TIMESFORMER.NUM_HEADS 7", ["TIMESFORMER.EMBED_DIM", "TIMESFORMER.NUM_HEADS 7"]),
    ("DATA.TRAIN_CROP_SIZE 225", ["DATA.TRAIN_CROP_SIZE 225", "PATCH_SIZE", "224 or 240"]),
    ("DATA.TEST_CROP_SIZE 100", ["DATA.TEST_CROP_SIZE 100", "96 or 112"]),
    ("DATA.MEAN [.5]", ["DATA.MEAN", "3 values"]),
    ("DATA.STD [.5,.5,.5,.5]", ["DATA.STD", "3 values"]),
    ("DATA.STD [.5,0,.5]", ["DATA.STD", "above 0"]),
    ("DATA.TEST_SHORT_SIDE 200", ["DATA.TEST_SHORT_SIDE", "DATA.TEST_CROP_SIZE"]),
    ("DATA.TRAIN_JITTER_SCALES [256]", ["DATA.TRAIN_JITTER_SCALES"]),
    ("TIMESFORMER.TIME_EMBED_AMPLITUDE -2.0", ["TIMESFORMER.TIME_EMBED_AMPLITUDE", "or -1"]),
    ("DATA.NUM_FRAMES 7 TIMESFORMER.TUBELET_SIZE 2", ["DATA.NUM_FRAMES 7", "TUBELET_SIZE"]),
    ("DATA.TRAIN_JITTER_SCALES [0,256]", ["DATA.TRAIN_JITTER_SCALES", "at least 1"]),
    ("DATA.TRAIN_JITTER_SCALES [320,256]", ["DATA.TRAIN_JITTER_SCALES", "the least value, then"]),
    ("DATA.TRAIN_JITTER_SCALES [200,256]", ["DATA.TRAIN_JITTER_SCALES", "DATA.TRAIN_CROP_SIZE"]),
    # optimisation
    ("SOLVER.STEPS [0,11]", ["SOLVER.STEPS", "SOLVER.LRS"]),
    ("SOLVER.STEPS [1,11,14]", ["SOLVER.STEPS", "start with 0"]),
    ("SOLVER.STEPS [0,11,11]", ["SOLVER.STEPS", "increase"]),
    ("SOLVER.LR_POLICY cosine SOLVER.COSINE_END_LR 1", ["SOLVER.COSINE_END_LR", "BASE_LR"]),
    ("SOLVER.WARMUP_EPOCHS 15", ["SOLVER.WARMUP_EPOCHS", "SOLVER.MAX_EPOCH 15: set it to 1.5,"]),
    ("SOLVER.WARMUP_EPOCHS 1", ["SOLVER.WARMUP_START_LR", "SOLVER.BASE_LR"]),
    ("SOLVER.MOMENTUM 0", ["SOLVER.NESTEROV", "SOLVER.MOMENTUM"]),
    ("SOLVER.DAMPENING .1", ["SOLVER.NESTEROV", "SOLVER.DAMPENING"]),
    ("MIXUP.ENABLED True MIXUP.ALPHA 0 MIXUP.CUTMIX_ALPHA 0", ["MIXUP.ALPHA"]),
    ("MIXUP.ENABLED True NUM_GPUS 8", ["MIXUP.ENABLED", "TRAIN.BATCH_SIZE", "1 clip:"]),
    ("TIMESFORMER.INIT scratch", ["TIMESFORMER.INIT", "TIMESFORMER.PRETRAINED_MODEL"]),
    (
        "TIMESFORMER.INIT scratch TIMESFORMER.PRETRAINED_MODEL torchvision/vit_b_16",
        ["TIMESFORMER.INIT", "TIMESFORMER.PRETRAINED_MODEL"],
    ),
    ("TRAIN.CHECKPOINT_FILE_PATH none.pyth", ["TRAIN.CHECKPOINT_FILE_PATH", "none.pyth"]),
    ("TRAIN.TUBE_KEEP 0", ["TRAIN.TUBE_KEEP", "above 0 and at most 1"]),
    ("TRAIN.MULTIGRID long DATA.NUM_FRAMES 6", ["TRAIN.MULTIGRID long", "DATA.NUM_FRAMES 6"]),
    ("TRAIN.MULTIGRID long TRAIN.FULL_EPOCHS 20", ["TRAIN.MULTIGRID long would", "FULL_EPOCHS 20"]),
    ("TRAIN.MULTIGRID wide", ["TRAIN.MULTIGRID", "long"]),
    ("TRAIN.FULL_EPOCHS -2", ["TRAIN.FULL_EPOCHS", "or -1"]),
    ("TRAIN.TUBE_KEEP .5 TRAIN.FULL_EPOCHS 15", ["TRAIN.TUBE_KEEP 0.5", "TRAIN.FULL_EPOCHS 15"]),
    # test
    ("TEST.NUM_SPATIAL_CROPS 2", ["TEST.NUM_SPATIAL_CROPS", "1 or 3"]),
    ("TEST.SAVE_RESULTS_PATH scores.pkl", ["TEST.SAVE_RESULTS_PATH", ".npz or .csv"]),
    (f"TEST.SAVE_RESULTS_PATH {'x' * 260}.npz", ["TEST.SAVE_RESULTS_PATH xxx", "too long"]),
    ("TEST.SAVE_RESULTS_PATH a.npz,", ["TEST.SAVE_RESULTS_PATH", ".npz or .csv"]),
    (
        "TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH none.pyth",
        ["TEST.CHECKPOINT_FILE_PATH", "none.pyth"],
    ),
]


@pytest.mark.parametrize(("overrides", "fragments"), BAD)
def test_impossible(overrides: str, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(make(overrides))
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


GOOD = [
    "",
    "GLOBAL_BATCH_SIZE 0",
    "NUM_GPUS 8",
    "NUM_GPUS 1 TRAIN.AMP fp16 DIST_BACKEND nccl",
    "TRAIN.AMP bf16",
    "NUM_SHARDS 2 SHARD_ID 1",
    "TRAIN.ENABLE False GLOBAL_BATCH_SIZE 60 SOLVER.WARMUP_EPOCHS 1 TRAIN.BATCH_SIZE 7",
    "TEST.ENABLE False TEST.NUM_SPATIAL_CROPS 2 TEST.BATCH_SIZE 7",
    "SOLVER.MAX_EPOCH 2",
    "SOLVER.MAX_EPOCH 1 SOLVER.STEPS [0] SOLVER.LRS [1] TRAIN.TUBE_KEEP .5",
    "SOLVER.LR_POLICY cosine SOLVER.STEPS [3]",
    "SOLVER.OPTIMIZING_METHOD adamw SOLVER.MOMENTUM 0",
    "SOLVER.WARMUP_EPOCHS 0.5 SOLVER.WARMUP_START_LR 1e-5",
    "TEST.NUM_SPATIAL_CROPS 1 DATA.TEST_CROP_SIZE 256",
    "DATA.TEST_CROP_SIZE 288",
    "DATA.TRAIN_CROP_SIZE 288 AUG.RESIZED_CROP True",
    "TEST.SAVE_RESULTS_PATH a.npz,b.csv",
    "TEST.CHECKPOINT_FILE_PATH written_by_training.pyth",
    "MIXUP.ENABLED True MIXUP.ALPHA 0",
    "TIMESFORMER.PRETRAINED_MODEL missing.pth TIMESFORMER.INIT scratch",
    "TIMESFORMER.ATTENTION_TYPE from_a_plug_in",
]


@pytest.mark.parametrize("overrides", GOOD)
def test_possible(overrides: str) -> None:
    check(make(overrides))


def test_empty_text_and_separators() -> None:
    for key in ("OUTPUT_DIR", "TRAIN.DATASET", "DATA.PATH_LABEL_SEPARATOR", "MODEL.MODEL_NAME"):
        cfg = make("")
        cfg.merge_from_list([key, ""])
        with pytest.raises(ConfigError, match=f"{key} must not be empty"):
            check(cfg)


def test_an_existing_checkpoint_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.pyth"
    path.touch()
    for source in (path, tmp_path, "hf/someone/timesformer", "timm/vit_base_patch16_224"):
        check(make(f"TRAIN.CHECKPOINT_FILE_PATH {source}"))
    with pytest.raises(ConfigError, match="no file"):
        check(make(f"TRAIN.CHECKPOINT_FILE_PATH {tmp_path}/absent"))


def test_what_python_code_sets_is_checked_too() -> None:
    cfg = make("")
    cfg.TRAIN.EPOCHS = 3
    with pytest.raises(ConfigError, match=r"unknown key TRAIN\.EPOCHS"):
        check(cfg)
    cfg = make("")
    cfg.NUM_GPUS = "two"
    with pytest.raises(ConfigError, match="NUM_GPUS must be a whole number"):
        check(cfg)


def test_check_changes_nothing() -> None:
    cfg = make("")
    cfg.SOLVER.BASE_LR = 1
    before = cfg.clone()
    cfg.freeze()
    check(cfg)
    assert cfg == before
    assert type(cfg.SOLVER.BASE_LR) is int


@pytest.mark.parametrize(
    ("batch", "global_batch", "local", "nodes", "expected"),
    [
        (8, 64, 8, 1, BatchLayout(per_rank=1, ranks=8, accumulation=8, global_batch=64)),
        (8, 64, 4, 1, BatchLayout(2, 4, 8, 64)),
        (8, 64, 4, 2, BatchLayout(2, 8, 4, 64)),
        (64, 64, 1, 1, BatchLayout(64, 1, 1, 64)),
        (6, 0, 2, 3, BatchLayout(3, 6, 1, 18)),
    ],
)
def test_batch_layout(
    batch: int, global_batch: int, local: int, nodes: int, expected: BatchLayout
) -> None:
    cfg = make(f"TRAIN.BATCH_SIZE {batch} GLOBAL_BATCH_SIZE {global_batch}")
    layout = batch_layout(cfg, local, nodes)
    assert layout == expected
    assert layout.per_rank * layout.ranks * layout.accumulation == layout.global_batch


def test_64_clips_by_24_is_an_error_not_48() -> None:
    with pytest.raises(ConfigError, match="nearest: 48 or 72"):
        batch_layout(make("TRAIN.BATCH_SIZE 24 GLOBAL_BATCH_SIZE 64"), 8, 1)


def test_torchrun_decides_over_num_gpus_and_num_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make("NUM_GPUS 8 NUM_SHARDS 3")
    assert ranks(cfg) == (8, 3)
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert ranks(cfg) == (2, 2)
    check(make("NUM_GPUS 0"))  # 4 clips on each of 4 processes, one pass a step
    with pytest.raises(ConfigError, match=r"TRAIN\.BATCH_SIZE 7"):
        check(make("NUM_GPUS 0 TRAIN.BATCH_SIZE 7 GLOBAL_BATCH_SIZE 0"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="nproc-per-node"):
        check(make("NUM_GPUS 0"))


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_devices(make("NUM_GPUS 0"))
    with pytest.raises(ConfigError, match=r"NUM_GPUS 1: .* has 0 usable GPUs; NUM_GPUS 0 runs"):
        check_devices(make("NUM_GPUS 1"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(make("NUM_GPUS 2"))
    with pytest.raises(ConfigError, match=r"NUM_GPUS 4: .* has 2 usable GPUs; use at most 2"):
        check_devices(make("NUM_GPUS 4"))
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match="torchrun started processes for 3"):
        check_devices(make("NUM_GPUS 1"))
