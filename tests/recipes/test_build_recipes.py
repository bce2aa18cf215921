"""Every recipe builds its model on the meta device; published ones have the paper's size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_files import load

from timesformer.config.validate import check
from timesformer.models.build import make_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OTHERS = ("ViViT", "MViT", "SlowFast", "I3D")  # test_recipes and test_cnn_recipes have these
RECIPES = sorted(
    path
    for path in CONFIGS.glob("**/*.yaml")
    if path.parent.name != "Baselines" and not path.stem.startswith(OTHERS)
)
PARAMS = {  # (scheme, classes) for 8 frames of 224×224
    ("space_only", 400): 86_106_256,
    ("joint_space_time", 400): 86_112_400,
    ("divided_space_time", 400): 121_566_352,
    ("divided_space_time", 174): 121_392_558,
    ("sparse_local_global", 174): 121_392_558,
    ("sparse_local_global", 400): 121_566_352,
    ("axial", 174): 156_846_510,
    ("axial", 400): 157_020_304,
    ("joint_space_time", 174): 85_938_606,
    ("space_only", 174): 85_932_462,
    **{
        (scheme, classes): params
        for scheme in ("space_then_time", "parallel_space_time")  # the modules of divided
        for classes, params in ((400, 121_566_352), (174, 121_392_558))
    },
    # 769 a class, 768 weights and a bias, less or more than with 400 of them
    ("divided_space_time", 48): 121_295_664,
    ("divided_space_time", 600): 121_720_152,
    ("divided_space_time", 1059): 122_073_123,
    ("divided_space_time", 101): 121_336_421,
    ("divided_space_time", 51): 121_297_971,
    ("divided_space_time", 10): 121_266_442,
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_builds(path):
    cfg = load(path)
    check(cfg)
    with torch.device("meta"):
        model = make_model(cfg)
    params = sum(p.numel() for p in model.parameters())
    frames, side = cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE
    if path.stem.endswith("_laptop"):  # a ViT-Ti
        assert params == 7_726_275
    elif path.parent.name != "Synthetic":
        # Other clips than 8×224² differ in the number of stored positions alone.
        positions = (frames - 8) + ((side // 16) ** 2 - 14**2)
        if cfg.TIMESFORMER.POS_EMBED != "space_time":
            positions -= frames
        if cfg.TIMESFORMER.POS_EMBED == "none":
            positions -= (side // 16) ** 2 + 1
        expected = PARAMS[cfg.TIMESFORMER.ATTENTION_TYPE, cfg.MODEL.NUM_CLASSES] + 768 * positions
        assert params == expected
    pos_embed, time_embed = model.model.pos_embed, model.model.time_embed
    where = cfg.TIMESFORMER.POS_EMBED != "none"
    assert (pos_embed is not None) == where
    assert not where or pos_embed.shape[1] == (side // cfg.TIMESFORMER.PATCH_SIZE) ** 2 + 1
    when = (
        cfg.TIMESFORMER.ATTENTION_TYPE != "space_only" and cfg.TIMESFORMER.POS_EMBED == "space_time"
    )
    assert (time_embed is not None) == when
    assert not when or time_embed.shape[1] == frames
