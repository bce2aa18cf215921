"""Files as big_vision writes them: what belongs to the model, and what its head was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from golden_model import tiny_model
from golden_recipe import fill_
from google_layout import google_vit, save
from test_formats import our_vit, timm_vit, video_model
from timm.models.vision_transformer import VisionTransformer as TimmViT

from timesformer.engine.fit import invented_weights
from timesformer.models.create import from_pretrained
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.bundle import read_bundle
from timesformer.models.weights.formats import native_state
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.save import save_pretrained
from timesformer.utils.errors import WeightsError

HEAD = ("head.weight", "head.bias")


def big_vision(pool: str = "tok", rep_size: int = 0, **options: Any) -> dict[str, np.ndarray]:
    """Return one of big_vision's ViTs: pool_type "tok", "gap" or "map", and its rep_size."""
    arrays = google_vit(image=64, big_vision=True, cls=pool == "tok", **options)
    if pool == "tok":
        arrays["pos_embedding"] = arrays["pos_embedding"][:, 1:]
    if pool == "map":
        arrays["MAPHead_0/probe"] = np.ones((1, 1, 192), np.float32)
    if rep_size:
        arrays["pre_logits/kernel"] = np.ones((192, rep_size), np.float32)
        arrays["pre_logits/bias"] = np.ones(rep_size, np.float32)
        arrays["head/kernel"] = np.ones((rep_size, 7), np.float32)
    return arrays


# --------------------------------------------------------------------- what stands beside the model


def training_file(prefix: str, **options: Any) -> dict[str, np.ndarray]:
    """Return parameters, adafactor's state and the time that was taken, sorted as big_vision's."""
    arrays = big_vision(stacked=True, **options)
    kernel = "Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"
    assert arrays[kernel].shape == (2, 192, 3, 64)
    content = {f"{prefix}{key}": value for key, value in arrays.items()} | {
        "chrono/accum_examples_seen": np.int64(123),
        "chrono/accum_train_time": np.float64(2),
        "opt/0/count": np.int32(7),
        f"opt/0/inner_state/v_col/{kernel}": np.ones((2, 192, 3), np.float32),
        f"opt/0/inner_state/v_row/{kernel}": np.ones((2, 192, 64, 5), np.float32),
        f"opt/0/mu/{kernel}": np.full((2, 192, 12, 16), np.nan, np.float32),
        "params/txt/Encoder_0/encoderblock_0/MultiHead_0/query/kernel": np.ones((9, 8, 4)),
    }
    if prefix == "params/":
        del content["params/txt/Encoder_0/encoderblock_0/MultiHead_0/query/kernel"]
    return dict(sorted(content.items()))


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", "params/img/", "opt/target/img/"])
def test_only_the_model_of_a_training_file_is_read(prefix, tmp_path):
    content = training_file(prefix)
    path = save(tmp_path / "checkpoint.npz", content)
    ours = our_vit("Ti", 16, 64, 2)
    report = load_pretrained(ours, path)
    assert len(report.loaded) == len(ours.state_dict())
    assert report.ignored == tuple(key for key in content if not key.startswith(prefix))
    assert read_bundle(path).architecture.num_heads == 3


# --------------------------------------------------------------------- every entry is accounted for

ATTENTION = "Transformer/encoderblock_1/MultiHeadDotProductAttention"


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (f"{ATTENTION}_0/query_ln/scale", "not a part of a plain ViT's attention"),
        (f"{ATTENTION}_0/key_ln/scale", "not a part of a plain ViT's attention"),
        (f"{ATTENTION}_1/query/kernel", "holds query/kernel twice"),
        ("Transformer/encoderblock_1/LayerNorm_2/scale", r"holds blocks\.1\.norm2\.weight twice"),
        ("Transformer/encoderblock_1/MlpBlock_1/Dense_0/bias", "mlp.fc1.bias twice"),
        ("Transformer/encoderblock/LayerNorm_0/bias", "LayerNorm_0/bias twice"),
        ("Transformer/posembed_input/pos_embedding", "holds pos_embed twice"),
    ],
)
def test_parts_of_googles_that_would_vanish_are_named(key, complaint, tmp_path):
    arrays = big_vision() | {key: np.ones((2, 192), np.float32)}
    with pytest.raises(WeightsError, match=complaint) as caught:
        load_pretrained(our_vit("Ti", 16, 64, 2), save(tmp_path / "more.npz", arrays))
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("state", "twice"),
    [
        ({"timesformer.embeddings.cls_token": 1, "embeddings.cls_token": 2}, "cls_token"),
        ({"backbone.norm.bias": 1, "norm.bias": 2}, "norm.bias"),
        ({"backbone.patch_embed.proj.bias": 1, "backbone.cls_token": 1, "cls_token": 2}, "cls_tok"),
    ],
    ids=["transformers", "mmaction2", "inside another model"],
)
def test_one_weight_by_two_names_is_an_error(state, twice):
    telling = {
        "norm.bias": ["backbone.transformer_layers.layers.0.norms.0.bias"],
        "cls_token": [
            "embeddings.patch_embeddings.projection.bias",
            "encoder.layer.0.attention.attention.qkv.bias",
        ],
    }
    content = {key: torch.full((1,), float(number)) for key, number in state.items()}
    content |= {key: torch.ones(1) for key in telling.get(twice, [])}
    with pytest.raises(ValueError, match=f"holds {twice}.* twice"):
        native_state(content)


# --------------------------------------------------------------------- patches and positions


@pytest.mark.parametrize("scheme", ["space_only", "divided_space_time"])
def test_positions_of_frames_that_are_not_square_are_not_taken_for_a_square(scheme, tmp_path):
    """1 + 3·8 positions are as many as 5·5."""
    model = fill_(video_model(scheme, img_size=(48, 128)))
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    assert torch.equal(again.model.pos_embed, model.model.pos_embed)
    with pytest.raises(WeightsError, match="24 patch positions don't form a 4×4 grid"):
        load_pretrained(video_model(scheme), tmp_path)


def test_old_files_of_googles_have_a_position_of_cls(tmp_path):
    arrays = google_vit(image=64)
    positions = "Transformer/posembed_input/pos_embedding"
    arrays[positions] = np.ones((1, 25, 192), np.float32)
    path = save(tmp_path / "wide.npz", arrays)
    with pytest.raises(WeightsError, match="24 patch positions don't form a 4×4 grid"):
        load_pretrained(our_vit("Ti", 16, 64, 2), path)
    assert not load_pretrained(our_vit("Ti", 16, (48, 128), 2), path).resized
