"""From a config to a model."""

from __future__ import annotations

import pytest
import torch

from timesformer.config.defaults import get_cfg
from timesformer.models.build import build_model, label, make_model
from timesformer.models.vit import TIMESFORMERS, TimeSformer
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


OTHER = {
    "ATTENTION_TYPE": "axial", "PATCH_SIZE": 8, "TUBELET_SIZE": 2, "EMBED_DIM": 96, "DEPTH": 2,
    "TEMPORAL_DEPTH": 1,
    "NUM_HEADS": 6, "MLP_RATIO": 2.0, "POS_EMBED": "space", "CLS_IN_TIME": True,
    "LOCAL_WINDOW": "centred", "DROP_PATH_RATE": 0.2, "INIT": "scratch",
    "TIME_EMBED_AMPLITUDE": 1.0, "ACT_CHECKPOINT": True,
    "POS_EMBED_RESIZE": "bilinear", "TIME_EMBED_RESIZE": "linear", "TUBELET_INIT": "average",
}  # fmt: skip
NOT_READ = {
    "vtn": {"ATTENTION_TYPE", "CLS_IN_TIME", "LOCAL_WINDOW", "TIME_EMBED_AMPLITUDE"},
    "s3d": {*OTHER},
    "mvit_v2_s": {*OTHER},
}


def test_other_values_are_there_for_every_key():
    keys = {*get_cfg().TIMESFORMER} - {"PRETRAINED_MODEL"}
    assert {*OTHER} == keys, "a new key: give it another value than its default here"


@pytest.mark.parametrize("key", OTHER)
@pytest.mark.parametrize("name", NOT_READ)
def test_keys_that_a_model_does_not_read_are_refused(name, key):
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.TIMESFORMER[key] = name, OTHER[key]
    with torch.device("meta"):
        if key in NOT_READ[name]:
            with pytest.raises(ConfigError, match=rf"^TIMESFORMER\.{key}: {name} doesn't read it"):
                make_model(cfg)
        else:
            make_model(cfg)


@pytest.mark.parametrize("name", sorted(TIMESFORMERS))
def test_only_models_with_blocks_over_time_have_a_number_of_them(name):
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.TIMESFORMER.TEMPORAL_DEPTH = name, 4
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match=rf"^TIMESFORMER\.TEMPORAL_DEPTH: {name} doesn't read it"),
    ):
        make_model(cfg)
    with pytest.raises(TypeError, match="no argument 'temporal_depth'"):
        TimeSformer(temporal_depth=4)


def test_titles_tell_models_apart():
    cfg, names = get_cfg(), {}
    for cfg.MODEL.MODEL_NAME in (*sorted(TIMESFORMERS), "s3d"):
        names[cfg.MODEL.MODEL_NAME] = label(cfg)
    assert names["vit_base_patch16_224"] == names["TimeSformer"] == "divided_space_time"
    assert names["vit_tiny_patch16_224"] == "divided_space_time, vit_tiny"
    assert names["s3d"] == "s3d"
    assert len({*names.values()}) == len(names) - 1
