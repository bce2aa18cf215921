"""Files as big_vision writes them: what belongs to the model, and what its head was trained on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from golden_model import tiny_model
from golden_recipe import fill_
from google_layout import google_vit, save
from safetensors.torch import save_file
from test_formats import our_vit, timm_vit, video_model
from timm.models.vision_transformer import VisionTransformer as TimmViT

from timesformer.engine.agreement import invented_weights
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


# --------------------------------------------------------------------- heads


@pytest.mark.parametrize("rep_size", [192, 64])
def test_a_head_behind_pre_logits_is_left_out(rep_size, tmp_path, caplog):
    path = save(tmp_path / "rep.npz", big_vision(rep_size=rep_size))
    ours = our_vit("Ti", 16, 64, 2)
    before = ours.model.head.weight.clone()
    report = load_pretrained(ours, path)
    assert report.unexpected == report.missing == HEAD
    assert torch.equal(ours.model.head.weight, before)
    assert "trained on the output of a layer before it (pre_logits" in caplog.text
    assert invented_weights(report) == list(HEAD)  # for which a test refuses the file
    caplog.clear()
    assert read_bundle(path).architecture.num_classes == 0
    assert "its head is left out" in caplog.text
    assert from_pretrained(path, num_classes=7).architecture.num_classes == 7


@pytest.mark.parametrize("layer", ["pre_logits.fc.weight", "attn_pool.latent"])
def test_a_head_behind_a_layer_of_timm_is_left_out(layer, caplog):
    state = tiny_model("space_only").state_dict() | {layer: torch.ones(96, 96)}
    report = load_pretrained(tiny_model("divided_space_time"), state)
    assert (report.unexpected, report.missing, report.ignored) == (HEAD, HEAD, (layer,))
    assert "is left out" in caplog.text
    caplog.clear()
    # A head for other classes goes anyway, and one that isn't wanted is no loss.
    load_pretrained(tiny_model("divided_space_time", num_classes=4), state)
    load_pretrained(tiny_model("divided_space_time", num_classes=0), state)
    assert not caplog.text


@pytest.mark.parametrize("scheme", ["factorised_self_attention", "factorised_dot_product"])
@pytest.mark.parametrize(
    ("pool", "rep_size", "fits"),
    [("gap", 0, True), ("tok", 0, False), ("map", 0, False), ("gap", 192, False)],
)
def test_schemes_that_average_take_heads_of_averages_alone(
    scheme, pool, rep_size, fits, tmp_path, caplog
):
    path = save(tmp_path / "vit.npz", big_vision(pool, rep_size))
    ours = our_vit("Ti", 16, 64, 2, scheme)
    report = load_pretrained(ours, path)
    assert report.missing == (() if fits else HEAD)
    assert ("the head of the file is left out" in caplog.text) != fits
    again = load_pretrained(our_vit("Ti", 16, 64, 2, scheme), ours.state_dict())
    assert not again.missing


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


@pytest.mark.parity
@pytest.mark.parametrize("patch", [8, 20])
def test_patches_of_another_size_are_those_of_timms_reader(patch, tmp_path):
    path = save(tmp_path / "vit.npz", google_vit(image=64, depth=1))
    theirs = timm_vit("Ti", patch, 2 * patch, 1)
    theirs.load_pretrained(str(path))
    expected = theirs.patch_embed.proj.weight
    ours = our_vit("Ti", patch, 2 * patch, 1)
    load_pretrained(ours, path)
    for model in (ours, from_pretrained(path, patch_size=patch, img_size=2 * patch)):
        weight = model.model.patch_embed.proj.weight
        torch.testing.assert_close(weight, expected, atol=1e-6, rtol=0)
    # Other layouts have bicubic images in mind, with antialias.
    ours = our_vit("Ti", patch, 2 * patch, 1)
    load_pretrained(ours, native_state(read_bundle(path).state)[0])
    kernel = torch.from_numpy(google_vit(image=64, depth=1)["embedding/kernel"]).permute(3, 2, 0, 1)
    other = timm.layers.resample_patch_embed(kernel, [patch, patch])
    torch.testing.assert_close(ours.model.patch_embed.proj.weight, other, atol=1e-6, rtol=0)
    assert (other - expected).abs().max() > 1e-3


def sines(height: int, width: int, dim: int) -> np.ndarray:
    """Return big_vision's posemb_sincos_2d, position by position."""
    rates = [10_000 ** -(i / (dim // 4 - 1)) for i in range(dim // 4)]
    rows = []
    for y in range(height):
        for x in range(width):
            angles = [np.array([place * rate for rate in rates]) for place in (x, y)]
            rows.append(np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)]))
    return np.stack(rows)


@pytest.mark.parametrize("pool", ["tok", "gap"])
def test_positions_that_are_computed(pool, tmp_path, caplog):
    arrays = big_vision(pool)
    del arrays["pos_embedding"]
    path = save(tmp_path / "sincos2d.npz", arrays)
    for scheme in ("divided_space_time", "factorised_self_attention"):
        ours = our_vit("Ti", 16, (48, 80), 2, scheme)
        prefix = ours.model.num_prefix_tokens
        fresh = ours.model.pos_embed[:, :prefix].clone()
        with caplog.at_level("INFO"):
            load_pretrained(ours, path)
        positions = ours.model.pos_embed[0]
        np.testing.assert_allclose(positions[prefix:].detach(), sines(3, 5, 192), atol=1e-6)
        assert torch.equal(positions[:prefix], fresh[0] * (pool == "gap"))
    assert "sincos2d" in caplog.text
    with pytest.raises(WeightsError, match=r"sincos2d.*: say img_size"):
        from_pretrained(path)
    if pool == "tok":
        model = from_pretrained(path, img_size=80)
        positions = model.model.pos_embed[0, 1:].detach()
        np.testing.assert_allclose(positions, sines(5, 5, 192), atol=1e-6)


@pytest.mark.parametrize("scheme", ["space_only", "divided_space_time"])
def test_positions_of_frames_that_are_not_square_are_not_taken_for_a_square(scheme, tmp_path):
    """1 + 3·8 positions are as many as 5·5."""
    model = fill_(video_model(scheme, img_size=(48, 128)))
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    assert torch.equal(again.model.pos_embed, model.model.pos_embed)
    # A bare file says nothing, but the same model has as many.
    bare = load_pretrained(video_model(scheme, img_size=(48, 128)), dict(model.state_dict()))
    assert not bare.resized
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


# --------------------------------------------------------------------- what timm says


def test_models_of_timm_say_their_heads(monkeypatch, caplog):
    theirs = TimmViT(64, 16, embed_dim=192, depth=1, num_heads=6, num_classes=7)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: theirs)
    name = "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
    model = TimeSformer.from_pretrained(name)
    assert model.architecture.num_heads == 6
    assert "heads" not in caplog.text


def test_a_folder_of_timms_hub_names_its_architecture(tmp_path):
    theirs = TimmViT(64, 16, embed_dim=192, depth=1, num_heads=3, num_classes=7)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    said = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 7, "pretrained_cfg": said}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = from_pretrained(tmp_path)
    assert model.architecture.attention_type == "space_only"
    assert model.preprocessing == said | {"channel_order": "RGB"}
