"""Every YAML under configs/ parses and validates; the published ones say what the paper says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.strict_yaml import BASE_KEY, parse
from timesformer.config.validate import batch_layout, check, ranks

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"), key=str)
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]

# name -> frames, rate, crop, scheme, GPUs, trains
KINETICS = {
    "divST_8x32_224": (8, 32, 224, "divided_space_time", 8, True),
    "divST_8x32_224_4gpus": (8, 32, 224, "divided_space_time", 4, True),
    "divST_8x32_224_TEST": (8, 32, 224, "divided_space_time", 8, False),
    "divST_16x16_448": (16, 16, 448, "divided_space_time", 8, True),
    "divST_96x4_224": (96, 4, 224, "divided_space_time", 8, True),
    "jointST_8x32_224": (8, 32, 224, "joint_space_time", 8, True),
    "spaceOnly_8x32_224": (8, 32, 224, "space_only", 8, True),
}
SSV2 = {"divST_8_224": (8, 224), "divST_16_448": (16, 448), "divST_64_224": (64, 224)}


def load(path: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(path)
    return cfg


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_recipe_validates(path: Path) -> None:
    check(load(path))  # check_devices is left out: it depends on this machine


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_header_has_the_command_to_run_it(path: Path) -> None:
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, "a recipe starts with a comment: what it is, its numbers, its command"
    assert f"--cfg {path.relative_to(ROOT)}" in header[0]


VARIANTS = [path for path in RECIPES if BASE_KEY in path.read_text()]


@pytest.mark.parametrize("path", VARIANTS, ids=[str(path.relative_to(ROOT)) for path in VARIANTS])
def test_a_variant_holds_only_what_differs_from_its_base(path: Path) -> None:
    tree = parse(path.read_text(), str(path))
    base = tree.pop(BASE_KEY)
    before, own = dict(load(path.parent / base).leaves()), dict(CfgNode(tree).leaves())
    assert own, "a variant must change something"
    assert [key for key, value in own.items() if before[key] == value] == []


@pytest.mark.parametrize("name", KINETICS)
def test_kinetics(name: str) -> None:
    frames, rate, crop, scheme, gpus, trains = KINETICS[name]
    cfg = load(ROOT / f"configs/Kinetics/TimeSformer_{name}.yaml")
    assert (frames, rate) == (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE)
    assert scheme == cfg.TIMESFORMER.ATTENTION_TYPE
    assert (gpus, trains, True) == (cfg.NUM_GPUS, cfg.TRAIN.ENABLE, cfg.TEST.ENABLE)
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("kinetics", "kinetics")
    assert (cfg.MODEL.NUM_CLASSES, cfg.DATA.CLASS_NAMES) == (400, "kinetics400")
    assert (cfg.DATA.RANDOM_FLIP, cfg.DATA.REVERSE_INPUT_CHANNEL) == (True, False)
    assert_shared(cfg, crop)


@pytest.mark.parametrize("name", SSV2)
def test_ssv2(name: str) -> None:
    frames, crop = SSV2[name]
    cfg = load(ROOT / f"configs/SSv2/TimeSformer_{name}.yaml")
    assert frames == cfg.DATA.NUM_FRAMES
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("ssv2", "ssv2")
    assert (cfg.MODEL.NUM_CLASSES, cfg.DATA.CLASS_NAMES) == (174, "ssv2")
    assert (cfg.DATA.RANDOM_FLIP, cfg.DATA.REVERSE_INPUT_CHANNEL) == (False, True)
    assert_shared(cfg, crop)


def assert_shared(cfg: CfgNode, crop: int) -> None:
    data, solver = cfg.DATA, cfg.SOLVER
    assert (crop, crop) == (data.TRAIN_CROP_SIZE, data.TEST_CROP_SIZE)
    assert ([448, 512] if crop == 448 else [256, 320]) == data.TRAIN_JITTER_SCALES
    assert (data.MEAN, data.STD) == ([0.45] * 3, [0.225] * 3)
    assert (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) == (1, 3)
    assert (solver.STEPS, solver.LRS) == ([0, 11, 14], [1, 0.1, 0.01])
    assert (solver.BASE_LR, solver.MAX_EPOCH, solver.WEIGHT_DECAY) == (0.005, 15, 1e-4)
    assert (solver.OPTIMIZING_METHOD, solver.MOMENTUM, solver.NESTEROV) == ("sgd", 0.9, True)
    layout = batch_layout(cfg, *ranks(cfg))
    assert (layout.global_batch, layout.accumulation) == (64, 8)
