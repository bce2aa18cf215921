"""One list of knobs: every path from a config, file or keyword to a model goes through it."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from timesformer.config.allowed import CHOICES
from timesformer.config.defaults import get_cfg
from timesformer.config.validate import check
from timesformer.models import vit
from timesformer.models.architecture import (
    NAMED_SIZES,
    TEMPORAL_DEPTHS,
    Architecture,
    told_by_config,
)
from timesformer.models.build import MODEL_REGISTRY, make_model
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.utils.errors import ConfigError

# Keys of TIMESFORMER that say how weights are loaded, not what the model is.
LOADING = {"PRETRAINED_MODEL", "POS_EMBED_RESIZE", "TIME_EMBED_RESIZE", "TUBELET_INIT"}
KNOBS = [knob.name for knob in fields(Architecture)]


def other_value(knob: str) -> Any:
    """A value that isn't the default, and that can be."""
    value = getattr(Architecture(), knob)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        key = Architecture.__dataclass_fields__[knob].metadata["key"]
        return CHOICES.get(key, (value, f"{value}_2"))[1]
    return value / 2 if 0 < value < 1 else value + 1


def test_every_key_of_the_model_is_a_knob() -> None:
    keys = {knob.metadata["key"] for knob in fields(Architecture)}
    assert {f"TIMESFORMER.{key}" for key in get_cfg().TIMESFORMER if key not in LOADING} <= keys
    assert len(keys) == len(KNOBS)


def test_the_network_takes_every_knob() -> None:
    parameters = inspect.signature(VisionTransformer).parameters
    others = {"model", "temporal_depth", "width"}
    assert set(KNOBS) - parameters.keys() == others
    arguments = Architecture().arguments_for(VisionTransformer)
    assert arguments.keys() == set(KNOBS) - others


def test_every_knob_is_documented() -> None:
    for knob in fields(Architecture):
        assert f"\n    {knob.name}: {knob.metadata['meaning']}" in (Architecture.__doc__ or "")


@pytest.mark.parametrize("knob", KNOBS)
def test_no_way_loses_a_knob(knob: str) -> None:
    value = other_value(knob)
    architecture = replace(Architecture(), **{knob: value})
    assert architecture != Architecture()
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert Architecture.from_cfg(architecture.to_cfg()) == architecture
    assert told_by_config(dict(architecture.to_cfg().leaves()))[knob] == value
    if knob != "model":
        assert Architecture().changed("test", {knob: value}) == architecture


def test_json_is_plain() -> None:
    wide = Architecture(img_size=(32, 48))
    assert Architecture.from_json(wide.to_json()) == wide
    assert Architecture.from_cfg(wide.to_cfg()) == wide
    said = wide.to_json()
    assert said["img_size"] == [32, 48]
    assert {type(value) for value in said.values()} <= {str, int, float, bool, list}


@pytest.mark.parametrize("name", sorted(name for name, _ in MODEL_REGISTRY))
def test_a_model_knows_what_it_is_made_of(name: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = name
    with torch.device("meta"):
        model = make_model(cfg)
    assert model.architecture == Architecture.from_cfg(cfg)
    with torch.device("meta"):
        again = make_model(model.architecture.to_cfg())
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    model.reset_classifier(7)
    assert model.architecture.num_classes == 7


@pytest.mark.parametrize("name", NAMED_SIZES)
def test_named_sizes_are_the_true_ones(name: str) -> None:
    """A config that says nothing of sizes has ViT-B's, which aren't those of this model."""
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = name
    check(cfg)
    with torch.device("meta"):
        model = make_model(cfg)
    said = model.architecture
    assert (said.embed_dim, said.depth, said.num_heads) == NAMED_SIZES[name]
    assert model.model.blocks[0].attn.num_heads == said.num_heads
    assert Architecture.from_cfg(said.to_cfg()) == said
    with torch.device("meta"):  # the function alone, whatever the config names
        assert getattr(vit, name)(get_cfg()).architecture == Architecture(model=name)
    cfg.TIMESFORMER.NUM_HEADS = 2
    with pytest.raises(ConfigError, match=f"{name} is of width, depth, heads"):
        make_model(cfg)


def test_arguments_of_the_published_class() -> None:
    model = TimeSformer(32, 8, 5, 4, "axial", embed_dim=24, depth=1, num_heads=3)
    said = model.architecture
    assert (said.img_size, said.patch_size, said.num_classes, said.num_frames) == (32, 8, 5, 4)
    assert TimeSformer.of(said).architecture == said
    with pytest.raises(TypeError, match="hads"):
        TimeSformer(hads=3)


@pytest.mark.parametrize(
    ("knob", "value", "complaint"),
    [
        ("num_heads", "three", "num_heads must be a whole number, not 'three'"),
        ("num_heads", 3.5, "num_heads must be a whole number, not 3.5"),
        ("depth", True, "depth must be a whole number, not True"),
        ("cls_in_time", 1, "cls_in_time must be True or False, not 1"),
        ("mlp_ratio", None, "mlp_ratio must be a number, not None"),
        ("attention_type", 3, "attention_type must be text, not 3"),
        ("img_size", [32, 32, 32], "img_size must be a whole number"),
        ("img_size", ("a", 3), "img_size must be a whole number, not 'a'"),
        ("img_size", (32, 0), "img_size must be at least 1, not 0"),
        ("num_heads", 0, "num_heads must be at least 1, not 0"),
        ("drop_path_rate", math.nan, "drop_path_rate must be at least 0 and below 1, not nan"),
        (
            "time_embed_amplitude",
            -2.0,
            "time_embed_amplitude must be at least 0, or -1 for what .*INIT says",
        ),
        (
            "temporal_depth",
            -2,
            "temporal_depth must be from 0 to 1,000, or -1 for what the model's paper",
        ),
        ("init", "zeros", "init must be one of image, scratch, not 'zeros'"),
    ],
)
def test_values_of_the_wrong_kind_are_named(knob, value, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        Architecture(**{knob: value})
    with pytest.raises(ValueError, match=complaint):
        Architecture.from_json({knob: value})
    with pytest.raises(ConfigError, match=f"here: {complaint}"):
        Architecture().changed("here", {knob: value})


@pytest.mark.parametrize(("name", "depth"), TEMPORAL_DEPTHS.items())
def test_blocks_over_time_are_those_of_the_paper_unless_said(name: str, depth: int) -> None:
    assert Architecture(model=name).temporal_depth == depth
    assert Architecture.from_json({"model": name}).temporal_depth == depth  # of an older version
    assert Architecture(model=name, temporal_depth=0).temporal_depth == 0
    assert Architecture().temporal_depth == -1


@pytest.mark.parametrize("knob", ["depth", "temporal_depth"])
def test_depths_have_an_end(knob: str) -> None:
    """The blocks of a million would be made for hours before anything could be said of them."""
    assert getattr(Architecture(**{knob: 1_000}), knob) == 1_000
    with pytest.raises(ValueError, match=rf"{knob} must be from . to 1,000.*, not 1000000"):
        Architecture(**{knob: 1_000_000})


def test_a_size_cannot_contradict_the_models_name() -> None:
    with pytest.raises(ValueError, match="vit_tiny_patch16_224 is of width, depth, heads"):
        Architecture(model="vit_tiny_patch16_224", embed_dim=96)
    with pytest.raises(ConfigError, match="knows its own embed_dim: leave it out"):
        Architecture(model="vit_tiny_patch16_224").changed(
            "here", {"embed_dim": 768, "depth": 12, "num_heads": 12}
        )
    with torch.device("meta"):
        model = TimeSformer(model="vit_tiny_patch16_224")
    assert model.model.embed_dim == 192
    for name in ("mvit_v1_b", "nonsense"):
        with pytest.raises(ValueError, match=f"{name} is no TimeSformer"):
            TimeSformer(model=name)


def test_a_knob_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="has layer_scale, which isn't known here"):
        Architecture.from_json({"layer_scale": 1e-5})
    with pytest.raises(ConfigError, match=r"no argument 'num_head'; did you mean num_heads\?"):
        Architecture().changed("here", {"num_head": 3})
