"""Freezing and LoRA on a bare model: what is trained, what stays, and what is read back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.engine.needs import trained_on_meta
from timesformer.models.build import choose_trained
from timesformer.models.freezing import (
    freeze,
    keep_statistics,
    log_trained,
    warn_of_dead_ends,
    warn_of_random,
)
from timesformer.models.lora import add_lora, is_added, merged
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import ConfigError
from timesformer.utils.patterns import selected

NAMES = ["blocks.0.attn.qkv.weight", "blocks.10.temporal_attn.qkv.weight", "norm.bias", "head.bias"]
TEMPORAL = "*, !temporal_*, !time_embed, !head"


def small(**knobs: Any) -> TimeSformer:
    sizes = {"img_size": 32, "num_classes": 5, "num_frames": 2}
    return TimeSformer(**sizes | {"embed_dim": 24, "depth": 3, "num_heads": 3} | knobs)


def trained(model: nn.Module) -> set[str]:
    return {n.removeprefix("model.") for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "rows"),
    [
        ("", []),
        ("*", [0, 1, 2, 3]),
        ("*, !head", [0, 1, 2]),
        ("attn", [0]),
        ("attn.qkv", [0]),
        ("*attn.qkv", [0, 1]),
        ("blocks.[0-9]", [0]),
        ("blocks, !temporal_*", [0]),
        ("*, !blocks, blocks.10", [1, 2, 3]),
    ],
)
def test_patterns(patterns, rows):
    assert selected(NAMES, patterns, "KEY") == {NAMES[i] for i in rows}


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("hed", r"KEY: nothing is called 'hed'; did you mean head\?"),
        ("block.10", r"did you mean blocks\.10\?"),
        ("*, !tmporal_attn", "did you mean temporal_attn"),
        ("!head, *", "exception"),
        (" , ", r"KEY ' , ' selects nothing"),
        ("head, !bias", r"KEY 'head, !bias' selects nothing"),
    ],
)
def test_patterns_that_are_wrong(patterns, said):
    with pytest.raises(ConfigError, match=said):
        selected(NAMES, patterns, "KEY")


def test_all_frozen_is_refused():
    with pytest.raises(ConfigError, match=r"TRAIN\.FREEZE '\*'"):
        freeze(small(), "*")


def test_a_frozen_prefix_is_not_backpropagated(caplog):
    caplog.set_level(logging.INFO)
    model, clip = small().train(), torch.randn(2, 3, 2, 32, 32)
    freeze(model, "patch_embed, pos_embed, time_embed, cls_token, blocks.[01]")
    log_trained(model)
    assert "parameters are trained" in caplog.text
    seen = []
    for block in model.model.blocks:
        block.register_forward_hook(lambda module, given, out: seen.append(out.requires_grad))
    model(clip).sum().backward()
    assert seen == [False, False, True]
    assert {n for n, p in model.named_parameters() if p.grad is None} == {
        f"model.{n}" for n, _ in model.model.named_parameters()
    } - {f"model.{n}" for n in trained(model)}


def test_zero_layers_that_are_frozen_are_told(caplog):
    model = small()
    freeze(model, TEMPORAL)
    assert {n.partition(".")[0] for n in trained(model)} == {"time_embed", "blocks", "head"}
    warn_of_dead_ends(model)
    assert not caplog.records
    freeze(model, "temporal_fc")
    warn_of_dead_ends(model)
    assert "!temporal_fc" in caplog.text


def test_weights_that_are_frozen_at_random_are_told(caplog):
    model = small()
    freeze(model, "*, !blocks")
    warn_of_random(model, {"head.weight", "head.bias", "time_embed", "blocks.0.attn.qkv.weight"})
    (record,) = caplog.records
    assert record.message.startswith("head.weight is frozen at random")


def test_frozen_batch_norm_keeps_its_statistics():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2)).train()
    freeze(model, "1")
    keep_statistics(model)
    model(torch.randn(8, 2))
    assert [int(m.num_batches_tracked) for m in model[1:]] == [0, 1]


def lora_model() -> TimeSformer:
    cfg, model = get_cfg(), small()
    cfg.LORA.RANK, cfg.TRAIN.FREEZE = 2, "*, !temporal_fc, !head"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    choose_trained(cfg, model)
    return model


def test_lora_starts_as_the_model_was_and_trains_what_it_says():
    plain = small().eval()
    model, clip = small().eval(), torch.randn(2, 3, 2, 32, 32)
    model.load_state_dict(plain.state_dict())
    add_lora(model, 2, 16.0, "*attn.qkv, *attn.proj")
    assert torch.equal(model(clip), plain(clip))
    assert {n for n in model.state_dict() if not is_added(n)} == plain.state_dict().keys()
    model = lora_model()
    layers = [n for n in trained(model) if is_added(n)]
    assert len(layers) == 3 * 4 * 2  # blocks, qkv and proj of both steps, A and B
    assert {n for n in trained(model) if not is_added(n)} == {
        *(f"blocks.{i}.temporal_fc.{p}" for i in range(3) for p in ("weight", "bias")),
        *("head.weight", "head.bias"),
    }


def test_lora_merged_equals_unmerged_and_base_weights_stay():
    model, clip = lora_model(), torch.randn(2, 3, 2, 32, 32)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(clip).square().sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == parameter.requires_grad, name
    plain = small().eval()
    plain.load_state_dict(merged(model.state_dict()))
    model.eval()
    torch.testing.assert_close(plain(clip), model(clip), atol=1e-5, rtol=1e-5)
    # Additions alone make the difference: without them the outputs are others.
    bare = {n: v for n, v in model.state_dict().items() if not is_added(n)}
    plain.load_state_dict(bare)
    assert not torch.allclose(plain(clip), model(clip), atol=1e-2)


def test_lora_that_cannot_be_is_told():
    with pytest.raises(ConfigError, match=r"LORA\.TARGETS: no Linear layer is called 'attn.query'"):
        add_lora(small(), 2, 16.0, "attn.query")
    with pytest.raises(ConfigError, match=r"LORA\.TARGETS is empty"):
        add_lora(small(), 2, 16.0, "")
    with pytest.raises(ConfigError, match=r"LORA\.RANK 25"):
        add_lora(small(), 25, 16.0, "*attn.qkv")


def test_a_damaged_addition_is_left_for_the_reader_to_complain_of():
    state = lora_model().state_dict()
    name = next(n for n in state if n.endswith("lora_a"))
    del state[name]
    assert merged(state) is state


def test_lora_of_layers_that_a_model_does_not_call_is_refused():
    """Swin multiplies by its layers' weights itself: additions to them would never be trained."""
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.LORA.RANK, cfg.TRAIN.FREEZE = "swin3d_t", 2, "*, !head"
    cfg.DATA.TRAIN_CROP_SIZE = 32
    with pytest.raises(ConfigError, match=r"LORA\.TARGETS: .*attn\.qkv.*itself"):
        trained_on_meta(cfg)
    cfg.LORA.TARGETS = "mlp.0"
    assert trained_on_meta(cfg)


def test_a_state_dict_with_additions_is_read_as_their_sum():
    model, plain, clip = lora_model().eval(), small().eval(), torch.randn(2, 3, 2, 32, 32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_added(name):
                parameter.normal_(std=0.2)
    load_pretrained(plain, model.state_dict())
    torch.testing.assert_close(plain(clip), model(clip))
