"""From a config to a model."""

from __future__ import annotations

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.models.build import build_model
from timesformer.utils.errors import ConfigError


def small_cfg():
    cfg = get_cfg()
    cfg.NUM_GPUS = 0
    cfg.DATA.TRAIN_CROP_SIZE = 32
    cfg.TIMESFORMER.EMBED_DIM, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.NUM_HEADS = 12, 2, 3
    return cfg


def test_sizes_come_from_the_config():
    cfg = small_cfg()
    cfg.TIMESFORMER.PATCH_SIZE, cfg.TIMESFORMER.MLP_RATIO = 8, 2.0
    cfg.TIMESFORMER.DROP_PATH_RATE = 0.25
    cfg.TIMESFORMER.ACT_CHECKPOINT = True
    model = build_model(cfg).model
    assert model.pos_embed.shape == (1, 17, 12)
    assert len(model.blocks) == 2
    assert model.blocks[0].mlp.fc1.out_features == 24
    assert model.blocks[1].drop_path.drop_prob == 0.25
    assert model.act_checkpoint
    assert all(k.startswith("model.") for k in build_model(cfg).state_dict())


def test_named_size_refuses_other_sizes():
    cfg = small_cfg()
    cfg.MODEL.MODEL_NAME = "vit_tiny_patch16_224"
    with pytest.raises(ConfigError, match=r"TIMESFORMER.*: vit_tiny_patch16_224 is of width"):
        build_model(cfg)
    cfg.TIMESFORMER.EMBED_DIM, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.NUM_HEADS = 768, 12, 12
    assert build_model(cfg).model.embed_dim == 192


@pytest.mark.parametrize("key", ["MODEL.MODEL_NAME", "TIMESFORMER.ATTENTION_TYPE"])
def test_unknown_names_show_the_nearest(key):
    cfg = small_cfg()
    group, name = key.split(".")
    right = cfg[group][name]
    cfg[group][name] = right[:-1]
    with pytest.raises(ConfigError, match=rf"{key}.*did you mean {right}"):
        build_model(cfg)
