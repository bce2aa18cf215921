"""Every YAML under configs/ parses and validates; the published ones say what the paper says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from recipe_files import header, load

from timesformer.config.layout import batch_layout, ranks
from timesformer.config.node import CfgNode
from timesformer.config.strict_yaml import BASE_KEY, parse
from timesformer.config.validate import check
from timesformer.models.build import make_model

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
# name -> frames, rate, crop; the same three for Kinetics-600 and Diving-48
SIZES = {
    "divST_8x32_224": (8, 32, 224),
    "divST_16x16_448": (16, 16, 448),
    "divST_96x4_224": (96, 4, 224),
}
# frames -> seconds that a clip covers, clips of a test
HOWTO100M = {8: (8.5, 48), 32: (34.1, 12), 64: (68.3, 6), 96: (102.4, 4)}
FINETUNE = {"UCF101": (101, "ucf101"), "HMDB51": (51, "hmdb51")}
# What the paper says, which a header must repeat.
TOP1 = {
    "Kinetics": {
        "divST_8x32_224": 78.0, "divST_16x16_448": 79.7, "divST_96x4_224": 80.7,
        "jointST_8x32_224": 77.4, "spaceOnly_8x32_224": 76.9,
        "divST_8x32_224_K600": 79.1, "divST_16x16_448_K600": 81.8, "divST_96x4_224_K600": 82.2,
        "sparseLG_8x32_224": 75.9, "axial_8x32_224": 73.5,
        "divST_8x32_224_IN1K": 75.8, "divST_8x32_224_IN21K": 78.0, "divST_8x32_224_scratch": 64.8,
        "divST_8x32_224_noPos": 75.4, "divST_8x32_224_spacePos": 77.8,
    },
    "SSv2": {
        "divST_8_224": 59.5, "divST_16_448": 62.2, "divST_64_224": 62.4,
        "jointST_8_224": 58.5, "spaceOnly_8_224": 36.6, "sparseLG_8_224": 56.3, "axial_8_224": 56.2,
        "divST_8_224_IN1K": 59.5, "divST_8_224_IN21K": 59.5,
        "divST_8_224_noPos": 45.8, "divST_8_224_spacePos": 52.5,
    },
    "Diving48": {"divST_8x32_224": 74.9, "divST_16x16_448": 78.0, "divST_96x4_224": 81.0},
    "HowTo100M": {
        "divST_8x32_224": 56.8, "divST_32x32_224": 61.2, "divST_64x32_224": 62.2,
        "divST_96x32_224": 62.6,
    },
}  # fmt: skip
# ViViT's models, arXiv 2103.15691, Table 2: top-1. Model, scheme, millions of parameters here.
VIVIT = {
    "joint": (80.0, "vit_base_patch16_224", "joint_space_time", 86.7),
    "FE": (78.8, "vivit_factorised_encoder", "divided_space_time", 115.1),
    "mean": (75.8, "vivit_factorised_encoder", "divided_space_time", 86.7),
    "FSA": (77.4, "vit_base_patch16_224", "factorised_self_attention", 115.1),
    "FDP": (76.3, "vit_base_patch16_224", "factorised_dot_product", 86.7),
}
# What a variant changes of its folder's base recipe.
VARIANTS_OF_BASE = {
    "IN1K": {"TIMESFORMER.PRETRAINED_MODEL": "timm/deit_base_patch16_224.fb_in1k"},
    "IN21K": {"TIMESFORMER.PRETRAINED_MODEL": "timm/vit_base_patch16_224.orig_in21k"},
    "noPos": {"TIMESFORMER.POS_EMBED": "none"},
    "spacePos": {"TIMESFORMER.POS_EMBED": "space"},
    "jointST": {"TIMESFORMER.ATTENTION_TYPE": "joint_space_time"},
    "spaceOnly": {"TIMESFORMER.ATTENTION_TYPE": "space_only"},
    "spaceFirst": {"TIMESFORMER.ATTENTION_TYPE": "space_then_time"},
    "parallel": {"TIMESFORMER.ATTENTION_TYPE": "parallel_space_time"},
}
PUBLISHED = [(folder, name) for folder, names in TOP1.items() for name in names]


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_recipe_validates(path: Path) -> None:
    check(load(path))  # check_devices is left out: it depends on this machine


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_header_has_the_command_to_run_it(path: Path) -> None:
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment, "a recipe starts with a comment: what it is, its numbers, its command"
    name = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    assert re.search(rf"^#   timesformer run --cfg {name}( \\)?$", comment[0], re.MULTILINE)


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


@pytest.mark.parametrize("name", SIZES)
def test_kinetics600(name: str) -> None:
    cfg = load(ROOT / f"configs/Kinetics/TimeSformer_{name}_K600.yaml")
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("kinetics", "kinetics")
    assert (cfg.MODEL.NUM_CLASSES, cfg.DATA.CLASS_NAMES) == (600, "kinetics600")
    assert_size(cfg, *SIZES[name])
    assert_shared(cfg, SIZES[name][2])


@pytest.mark.parametrize("name", SIZES)
def test_diving48(name: str) -> None:
    cfg = load(ROOT / f"configs/Diving48/TimeSformer_{name}.yaml")
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("diving48", "diving48")
    assert (cfg.MODEL.NUM_CLASSES, cfg.DATA.CLASS_NAMES) == (48, "diving48")
    assert cfg.TIMESFORMER.PRETRAINED_MODEL == "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
    assert_size(cfg, *SIZES[name])
    assert_shared(cfg, SIZES[name][2])


@pytest.mark.parametrize("frames", HOWTO100M)
def test_howto100m(frames: int) -> None:
    seconds, clips = HOWTO100M[frames]
    cfg = load(ROOT / f"configs/HowTo100M/TimeSformer_divST_{frames}x32_224.yaml")
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("howto100m", "howto100m")
    assert (cfg.MODEL.NUM_CLASSES, cfg.TRAIN.FINETUNE) == (1059, True)
    assert cfg.DATA.SAMPLING_RATE * frames / cfg.DATA.TARGET_FPS == pytest.approx(seconds, abs=0.05)
    assert cfg.DATA.TEST_CLIP_SAMPLING == "tiled"
    assert_size(cfg, frames, 32, 224)
    assert_shared(cfg, 224, views=(clips, 1))


@pytest.mark.parametrize("name", FINETUNE)
def test_finetuning(name: str) -> None:
    cfg = load(ROOT / f"configs/Finetune/TimeSformer_divST_8x32_224_{name}.yaml")
    assert FINETUNE[name] == (cfg.MODEL.NUM_CLASSES, cfg.DATA.CLASS_NAMES)
    assert (cfg.TRAIN.DATASET, cfg.TRAIN.FINETUNE) == ("kinetics", True)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == (0.0005, 1e-4)  # a tenth
    assert cfg.SOLVER.STEPS[-1] < cfg.SOLVER.MAX_EPOCH < 15
    assert_size(cfg, 8, 32, 224)


def test_small_data() -> None:
    cfg = load(ROOT / "configs/Finetune/TimeSformer_divST_8x32_224_small.yaml")
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("videofolder", "videofolder")
    assert (cfg.NUM_GPUS, cfg.TRAIN.FINETUNE, cfg.SOLVER.LAYER_DECAY) == (1, True, 0.75)
    assert (cfg.SOLVER.OPTIMIZING_METHOD, cfg.SOLVER.LR_POLICY) == ("adamw", "cosine")
    assert 0 < cfg.SOLVER.WARMUP_EPOCHS < cfg.SOLVER.MAX_EPOCH
    assert (cfg.AUG.RESIZED_CROP, cfg.AUG.CROP_SCALE) == (True, [0.5, 1.0])
    assert cfg.SOLVER.LABEL_SMOOTHING == 0.1
    assert "not a published number" in header(
        "configs/Finetune/TimeSformer_divST_8x32_224_small.yaml"
    )


def test_a_first_try_on_a_laptop() -> None:
    path = ROOT / "configs/Finetune/TimeSformer_divST_8x8_112_laptop.yaml"
    cfg = load(path)
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("videofolder", "videofolder")
    assert (cfg.NUM_GPUS, cfg.MODEL.MODEL_NAME) == (0, "vit_tiny_patch16_224")
    weights = cfg.TIMESFORMER.PRETRAINED_MODEL.removeprefix("timm/")
    said = timm.get_pretrained_cfg(weights)
    assert (said.mean, said.std) == (tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD))
    assert cfg.TRAIN.BATCH_SIZE <= 2  # of 2 classes of 2 clips, one each is to train on
    cfg.SOLVER.MAX_EPOCH = 1
    check(cfg)
    assert "not a published number" in header(path)


@pytest.mark.parametrize(("folder", "name"), PUBLISHED)
def test_header_has_the_number_of_the_paper(folder: str, name: str) -> None:
    number = TOP1[folder][name]
    assert f"Paper: {number:.1f} top-1" in header(f"configs/{folder}/TimeSformer_{name}.yaml")


@pytest.mark.parametrize("folder", ["Kinetics", "SSv2"])
@pytest.mark.parametrize("variant", VARIANTS_OF_BASE)
def test_a_variant_of_the_base_recipe_changes_one_thing(folder: str, variant: str) -> None:
    size = "8x32_224" if folder == "Kinetics" else "8_224"
    path = ROOT / "configs" / folder / f"TimeSformer_divST_{size}.yaml"
    scheme = "TIMESFORMER.ATTENTION_TYPE" in VARIANTS_OF_BASE[variant]
    name = f"{variant}_{size}" if scheme else f"divST_{size}_{variant}"
    other = path.with_name(f"TimeSformer_{name}.yaml")
    before, after = dict(load(path).leaves()), dict(load(other).leaves())
    assert {k: v for k, v in after.items() if before[k] != v} == VARIANTS_OF_BASE[variant]


def test_image_weights_of_the_variants_are_known_to_timm() -> None:
    for variant in ("IN1K", "IN21K"):
        (name,) = VARIANTS_OF_BASE[variant].values()
        assert timm.get_pretrained_cfg(name.removeprefix("timm/")).hf_hub_id == name
    assert timm.get_pretrained_cfg("vit_base_patch16_224.orig_in21k").num_classes == 0


@pytest.mark.parametrize("name", VIVIT)
def test_vivit(name: str) -> None:
    top1, model, scheme, millions = VIVIT[name]
    path = ROOT / f"configs/Kinetics/ViViT_B_{name}_32x2_224.yaml"
    cfg, text = load(path), header(path)
    assert f"Paper (Table 2): {top1:.1f} top-1" in text
    assert (model, scheme) == (cfg.MODEL.MODEL_NAME, cfg.TIMESFORMER.ATTENTION_TYPE)
    assert (0 if name == "mean" else -1) == cfg.TIMESFORMER.TEMPORAL_DEPTH
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.TIMESFORMER.TUBELET_SIZE) == (32, 2, 2)
    assert (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) == (4, 1)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in make_model(cfg).parameters())
    assert round(parameters / 1e6, 1) == millions
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.MAX_EPOCH, solver.WARMUP_EPOCHS) == (0.1, 30, 2.5)  # its Table 7
    assert batch_layout(cfg, *ranks(cfg)).global_batch == 64


@pytest.mark.parametrize(
    ("name", "model", "top1", "top5"),
    [("MViTv1_B", "mvit_v1_b", 64.7, 89.2), ("MViTv2_S", "mvit_v2_s", 68.2, 91.4)],
)
def test_mvit_on_ssv2(name: str, model: str, top1: float, top5: float) -> None:
    """Its weights are torchvision's of Kinetics, which take 16 frames of RGB."""
    path = ROOT / f"configs/SSv2/{name}_16_224.yaml"
    base = dict(load(path.with_name("TimeSformer_divST_8_224.yaml")).leaves())
    assert {k: v for k, v in load(path).leaves() if base[k] != v} == {
        "DATA.NUM_FRAMES": 16,
        "DATA.REVERSE_INPUT_CHANNEL": False,
        "TIMESFORMER.PRETRAINED_MODEL": f"torchvision/{model}",
        "MODEL.MODEL_NAME": model,
    }
    assert f"{top1} top-1, {top5} top-5" in header(path)


def assert_size(cfg: CfgNode, frames: int, rate: int, crop: int) -> None:
    data = cfg.DATA
    assert (frames, rate, crop) == (data.NUM_FRAMES, data.SAMPLING_RATE, data.TRAIN_CROP_SIZE)
    assert cfg.TIMESFORMER.ATTENTION_TYPE == "divided_space_time"
    assert (data.RANDOM_FLIP, data.REVERSE_INPUT_CHANNEL) == (True, False)


def assert_shared(cfg: CfgNode, crop: int, views: tuple[int, int] = (1, 3)) -> None:
    data, solver = cfg.DATA, cfg.SOLVER
    assert (crop, crop) == (data.TRAIN_CROP_SIZE, data.TEST_CROP_SIZE)
    assert ([448, 512] if crop == 448 else [256, 320]) == data.TRAIN_JITTER_SCALES
    assert (data.MEAN, data.STD) == ([0.45] * 3, [0.225] * 3)
    assert views == (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS)
    assert (solver.STEPS, solver.LRS) == ([0, 11, 14], [1, 0.1, 0.01])
    assert (solver.BASE_LR, solver.MAX_EPOCH, solver.WEIGHT_DECAY) == (0.005, 15, 1e-4)
    assert (solver.OPTIMIZING_METHOD, solver.MOMENTUM, solver.NESTEROV) == ("sgd", 0.9, True)
    layout = batch_layout(cfg, *ranks(cfg))
    assert (layout.global_batch, layout.accumulation) == (64, 8)
