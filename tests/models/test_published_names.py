"""Names that readers of the published code know work, or say what took their place."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from golden_model import SCHEMES
from golden_recipe import fill_, tensor_for
from small_run import small_cfg

import timesformer.utils.checkpoint as cu
from timesformer.config.defaults import get_cfg
from timesformer.models.attention import ATTENTION_REGISTRY, TokenGrid
from timesformer.models.build import build_model
from timesformer.models.vit import Block, TimeSformer
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.misc import launch_job

B, T, H, W, D = 2, 3, 2, 4, 24
OF_AN_IMAGE = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
OF_TIME = ["temporal_norm1", "temporal_attn.qkv", "temporal_attn.proj", "temporal_fc"]


@pytest.mark.parametrize("scheme", [*SCHEMES, "axial", "factorised_self_attention"])
@torch.no_grad()
def test_block_is_that_of_the_scheme(scheme: str) -> None:
    block = fill_(Block(D, 3, mlp_ratio=2.0, qkv_bias=True, attention_type=scheme)).eval()
    own = ATTENTION_REGISTRY.get(scheme)
    assert isinstance(block, own)
    assert isinstance(block, Block)
    expected = fill_(own(D, 3, mlp_ratio=2.0, qkv_bias=True)).eval()
    shape = (B, int(own.cls_token) + H * W * T, D)
    if not own.one_sequence_per_clip:
        shape = (B * T, 1 + H * W, D)
    x = tensor_for("tokens", shape)
    torch.testing.assert_close(
        block(x, B, T, W), expected(x, TokenGrid(B, T, H, W)), atol=0, rtol=0
    )
    for again in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        torch.testing.assert_close(again(x, B, T, W), block(x, B, T, W), atol=0, rtol=0)


def test_block_has_the_published_weights_and_default() -> None:
    block = Block(D, 3, 4.0, True)
    names = {f"{name}.{kind}" for name in OF_AN_IMAGE + OF_TIME for kind in ("weight", "bias")}
    assert block.state_dict().keys() == names
    assert block(torch.zeros(B, 1 + H * W * T, D), B, T, W).shape == (B, 1 + H * W * T, D)
    assert all(
        isinstance(b, Block)
        for b in TimeSformer(32, embed_dim=D, depth=1, num_heads=3).model.blocks
    )
    assert not isinstance(torch.nn.Linear(1, 1), Block)
    positional = Block(
        D, 3, 4.0, True, None, 0.0, 0.0, 0.0, torch.nn.GELU, torch.nn.LayerNorm, "axial"
    )
    assert isinstance(positional, ATTENTION_REGISTRY.get("axial"))
    with pytest.raises(KeyError, match="divided"):
        Block(D, 3, attention_type="divided")


def test_the_models_published_name() -> None:
    cfg = get_cfg()
    cfg.NUM_GPUS = 0
    cfg.merge_from_list(["MODEL.MODEL_NAME", "TimeSformer", "TIMESFORMER.DEPTH", "1"])
    model = build_model(cfg)
    assert isinstance(model, TimeSformer)
    assert len(model.model.blocks) == 1


def test_launch_job() -> None:
    cfg, seen = get_cfg(), []
    cfg.NUM_GPUS = 0
    launch_job(cfg=cfg, init_method="tcp://localhost:9999", func=seen.append)
    assert seen == [cfg]
    with pytest.raises(ConfigError, match="daemon True isn't supported"):
        launch_job(cfg, "", seen.append, daemon=True)


@pytest.mark.parametrize(
    ("module", "name"), [("start", "load_train_checkpoint"), ("tested", "load_test_checkpoint")]
)
def test_moved_functions_say_where_they_are(module: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"is timesformer\.engine\.{module}\.{name}\(cfg, mod"):
        getattr(cu, name)(get_cfg(), None, None)


def test_there_they_do_what_they_did(synthetic_dir, tmp_path) -> None:
    from timesformer.engine.optimizer import construct_optimizer
    from timesformer.engine.start import load_train_checkpoint
    from timesformer.engine.tested import load_test_checkpoint

    cfg = small_cfg(synthetic_dir, tmp_path)
    model = build_model(cfg)
    optimizer = construct_optimizer(model, cfg)
    assert load_train_checkpoint(cfg, model, optimizer) == 0
    cu.save_checkpoint(tmp_path, model, optimizer, 1, cfg)
    assert load_train_checkpoint(cfg, build_model(cfg), optimizer) == 2
    other = build_model(cfg)
    load_test_checkpoint(cfg, other)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_a_subclass_of_block_would_never_be_made():
    """`Block` returns blocks of other classes: what a subclass overrides would be ignored."""
    with pytest.raises(TypeError, match=r"subclass timesformer\.models.attention\.SpaceTimeBlock"):
        type("Mine", (Block,), {"forward": lambda self, x: x})
