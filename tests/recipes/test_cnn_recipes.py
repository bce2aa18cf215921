"""Recipes of 3D CNNs: the clips, schedules and numbers of the public model zoos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_files import header, load

from timesformer.config.layout import batch_layout, ranks
from timesformer.config.validate import check
from timesformer.models.build import make_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Of pytorchvideo's zoo: model, frames, rate, top-1, top-5, millions of parameters, GMACs at 256².
ZOO = {
    "SlowFast_R50_8x8": ("slowfast_r50", 32, 2, "76.94", "92.69", "34.57", "65.71"),
    "Slow_R50_8x8": ("slow_r50", 8, 8, "74.58", "91.63", "32.45", "54.52"),
    "I3D_R50_8x8": ("i3d_r50", 8, 8, "73.27", "90.70", "28.04", "37.53"),
    "X3D_M_16x5": ("x3d_m", 16, 5, "75.94", "92.72", "3.79", "6.72"),
}


@pytest.mark.parametrize("name", ZOO)
def test_kinetics(name: str) -> None:
    model, frames, rate, top1, top5, millions, giga = ZOO[name]
    cfg = load(CONFIGS / f"Baselines/{name}.yaml")
    check(cfg)
    assert (model, frames) == (cfg.MODEL.MODEL_NAME, cfg.DATA.NUM_FRAMES)
    assert rate == cfg.DATA.SAMPLING_RATE
    assert (cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE) == (224, 256)
    assert (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) == (10, 3)
    assert (cfg.DATA.ENSEMBLE_METHOD, cfg.DATA.TEST_CLIP_SAMPLING) == ("prob", "legacy")
    assert (cfg.DATA.MEAN, cfg.DATA.STD) == ([0.45] * 3, [0.225] * 3)
    assert not cfg.DATA.REVERSE_INPUT_CHANNEL
    assert cfg.TIMESFORMER.PRETRAINED_MODEL == ""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in make_model(cfg).parameters())
    assert f"{parameters / 1e6:.2f}" == millions
    text = header(CONFIGS / f"Baselines/{name}.yaml")
    assert f"weights: {top1} top-1, {top5} top-5, {millions}M parameters" in text
    assert giga in text
    layout = batch_layout(cfg, *ranks(cfg))
    assert layout.per_rank >= 8  # for BatchNorm
    assert layout.accumulation == 1


@pytest.mark.parametrize(
    ("name", "classes", "views"),
    [("SSv2/SlowFast_R50_32_224", 174, (1, 3)), ("Diving48/SlowFast_R50_8x8", 48, (10, 3))],
)
def test_from_kinetics(name: str, classes: int, views: tuple[int, int]) -> None:
    cfg = load(CONFIGS / f"{name}.yaml")
    check(cfg)
    assert ("slowfast_r50", classes) == (cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES)
    assert not cfg.DATA.REVERSE_INPUT_CHANNEL  # as the weights of Kinetics
    assert views == (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS)
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE) == (32, 256)
    assert "SLOWFAST_8x8_R50.pyth" in header(CONFIGS / f"{name}.yaml")
    assert batch_layout(cfg, *ranks(cfg)).per_rank >= 8


@pytest.mark.parametrize("name", ["SlowFast", "I3D"])
def test_synthetic(name: str) -> None:
    """The clips of the demo: hints of the direction of time would be in others."""
    cfg = load(CONFIGS / f"Synthetic/{name}_narrow_8_64.yaml")
    demo = load(CONFIGS / "Synthetic/TimeSformer_divST_8_64.yaml")
    check(cfg)
    assert {k: v for k, v in cfg.DATA.items() if k != "ENSEMBLE_METHOD"} == {
        k: v for k, v in demo.DATA.items() if k != "ENSEMBLE_METHOD"
    }
    with torch.device("meta"):
        assert sum(p.numel() for p in make_model(cfg).parameters()) < 3e6
