"""`transformers` with random weights is an independent implementation of divided and joint."""

from __future__ import annotations

import pytest
import torch
from golden_model import tiny_model
from golden_recipe import clip_for, fill_

pytestmark = pytest.mark.parity

BLOCK = {
    "temporal_norm1": "temporal_layernorm",
    "temporal_attn.qkv": "temporal_attention.attention.qkv",
    "temporal_attn.proj": "temporal_attention.output.dense",
    "temporal_fc": "temporal_dense",
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.qkv",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
STEM = {
    "cls_token": "timesformer.embeddings.cls_token",
    "pos_embed": "timesformer.embeddings.position_embeddings",
    "time_embed": "timesformer.embeddings.time_embeddings",
    "patch_embed.proj": "timesformer.embeddings.patch_embeddings.projection",
    "norm": "timesformer.layernorm",
    "head": "classifier",
}


def hf_name(name: str) -> str:
    stem, _, tail = name.rpartition(".")
    if name in STEM:
        return STEM[name]
    if stem in STEM:
        return f"{STEM[stem]}.{tail}"
    _, i, rest = stem.split(".", 2)
    return f"timesformer.encoder.layer.{i}.{BLOCK[rest]}.{tail}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("scheme", ["divided_space_time", "joint_space_time"])
def test_logits_equal(scheme):
    transformers = pytest.importorskip("transformers")
    config = transformers.TimesformerConfig(
        image_size=64,
        patch_size=16,
        num_frames=4,
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=384,
        attention_type=scheme,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    other = transformers.TimesformerForVideoClassification(config).eval()
    ours = fill_(tiny_model(scheme), seed=3).eval()
    state = {hf_name(k): v for k, v in ours.state_dict().items()}
    # Joint models of theirs carry the temporal layers without using them.
    unused = other.load_state_dict(state, strict=False)
    assert not unused.unexpected_keys
    assert all("temporal" in k for k in unused.missing_keys)
    clip = clip_for("hf", (2, 3, 4, 64, 64), 3)
    with torch.no_grad():
        theirs = other(clip.transpose(1, 2)).logits
        difference = (ours(clip) - theirs).abs().max().item()
    assert difference < 1e-5, difference
