"""configs/Baselines: each file is the base with one model, its weights and their normalisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from recipe_files import header, load

from timesformer.config.defaults import get_cfg
from timesformer.config.layout import batch_layout, ranks
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.models.build import make_model

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "Baselines"
BASE = "TimeSformer_8x32_224"
TORCHVISION = {
    "MViTv1_B_8x32_224": "mvit_v1_b",
    "MViTv2_S_8x32_224": "mvit_v2_s",
    "Swin3D_T_8x32_224": "swin3d_t",
    "Swin3D_S_8x32_224": "swin3d_s",
    "Swin3D_B_8x32_224": "swin3d_b",
    "R2plus1D_18_8x32_224": "r2plus1d_18",
    "S3D_8x32_224": "s3d",
}
# model, top-1 of the paper, our millions of parameters for these clips
PER_FRAME = {
    "VTN_8x32_224": ("vtn", 78.6, 108.0),
    "ViViT_B_FE_8x32_224": ("vivit_factorised_encoder", 78.8, 115.1),
}
CNNS = ("SlowFast_R50_8x8", "Slow_R50_8x8", "I3D_R50_8x8", "X3D_M_16x5")  # test_cnn_recipes
# What a file may change, as a comparison is on the same clips, steps and views.
OWN = {
    "MODEL.MODEL_NAME",
    "TIMESFORMER.PRETRAINED_MODEL",
    "TIMESFORMER.TUBELET_SIZE",
    "DATA.MEAN",
    "DATA.STD",
    "TRAIN.BATCH_SIZE",
}


def checked(name: str) -> CfgNode:
    cfg = load(FOLDER / f"{name}.yaml")
    check(cfg)
    return cfg


def millions(cfg: CfgNode) -> float:
    with torch.device("meta"):
        model = make_model(cfg)
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 1)


def test_every_file_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {
        BASE, *TORCHVISION, *PER_FRAME, *CNNS,
    }  # fmt: skip


def test_base_is_the_recipe_of_timesformer_from_fresh_weights() -> None:
    kinetics = load(FOLDER.parent / "Kinetics" / "TimeSformer_divST_8x32_224.yaml")
    before, after = dict(kinetics.leaves()), dict(checked(BASE).leaves())
    assert {key for key in before if before[key] != after[key]} == {"TIMESFORMER.PRETRAINED_MODEL"}
    assert after["TIMESFORMER.PRETRAINED_MODEL"] == ""


@pytest.mark.parametrize("name", [*TORCHVISION, *PER_FRAME])
def test_only_the_model_changes(name: str) -> None:
    cfg = checked(name)
    before, after = dict(checked(BASE).leaves()), dict(cfg.leaves())
    assert {key for key in before if before[key] != after[key]} <= OWN
    assert batch_layout(cfg, *ranks(cfg)).global_batch == 64


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    cfg, model = checked(name), TORCHVISION[name]
    assert model == cfg.MODEL.MODEL_NAME
    assert f"torchvision/{model}" == cfg.TIMESFORMER.PRETRAINED_MODEL
    weights = torchvision.models.get_model_weights(model).DEFAULT
    transforms = weights.transforms()
    assert transforms.mean == cfg.DATA.MEAN
    assert transforms.std == cfg.DATA.STD
    metrics = weights.meta["_metrics"]["Kinetics-400"]
    text = header(FOLDER / f"{name}.yaml")
    assert f"{metrics['acc@1'] + 1e-9:.1f} top-1, {metrics['acc@5'] + 1e-9:.1f} top-5" in text
    assert f"{weights.meta['num_params'] / 1e6:.1f}M parameters" in text
    assert weights.url.rpartition("/")[2] in text  # the file that the command tests
    # With fewer frames than the weights' 16, MViT stores fewer positions.
    assert millions(cfg) == pytest.approx(weights.meta["num_params"] / 1e6, abs=0.1)


@pytest.mark.parametrize("name", TORCHVISION)
def test_command_for_torchvisions_own_clips_validates(name: str) -> None:
    cfg = checked(name)
    words = header(FOLDER / f"{name}.yaml").split("TEST.CHECKPOINT_FILE_PATH", 1)[1].split()
    options = words[words.index("DATA.NUM_FRAMES") : words.index("tests")]
    options = [word for word in options if word != "\\"]
    cfg.merge_from_list(["TRAIN.ENABLE", False, *options])
    check(cfg)
    weights = torchvision.models.get_model_weights(TORCHVISION[name]).DEFAULT
    assert f"`clip_len={cfg.DATA.NUM_FRAMES}`" in weights.meta["_docs"]
    assert f"`frame_rate={30 / cfg.DATA.SAMPLING_RATE:g}`" in weights.meta["_docs"]
    views = cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS
    assert f"`clips_per_video={views}`" in weights.meta["_docs"]
    assert weights.transforms().crop_size == [cfg.DATA.TEST_CROP_SIZE] * 2


@pytest.mark.parametrize("name", PER_FRAME)
def test_per_frame_encoders(name: str) -> None:
    model, top1, parameters = PER_FRAME[name]
    cfg = checked(name)
    assert model == cfg.MODEL.MODEL_NAME
    assert get_cfg().TIMESFORMER.PRETRAINED_MODEL == cfg.TIMESFORMER.PRETRAINED_MODEL
    assert f"Paper: {top1} top-1" in header(FOLDER / f"{name}.yaml")
    assert millions(cfg) == parameters
