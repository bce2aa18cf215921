"""Layouts of others, each against an independent reader of it: timm's, transformers', torch's."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import timm.layers
import torch
from golden_model import tiny_model
from golden_recipe import clip_for, fill_, tensor_for
from google_layout import WIDTHS, google_vit, save
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn

from timesformer.models.vit import TimeSformer
from timesformer.models.weights.bundle import Bundle, read_bundle
from timesformer.models.weights.formats import google_npz, hugging_face, mmaction2, native_state
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.save import write_hugging_face, write_mmaction2
from timesformer.utils.errors import WeightsError

SAME = 1e-5  # sums in another order: large products are oneDNN's here, and the BLAS's there
K400 = {"mean": [0.45, 0.45, 0.45], "std": [0.225, 0.225, 0.225], "channel_order": "RGB"}


def timm_vit(size, patch, image, depth):
    width, heads = WIDTHS[size]
    return TimmViT(image, patch, embed_dim=width, depth=depth, num_heads=heads, num_classes=7)


def our_vit(size, patch, image, depth, scheme="space_only", **changes):
    width, heads = WIDTHS[size]
    return TimeSformer(
        image, patch, 7, 4, scheme, embed_dim=width, depth=depth, num_heads=heads, **changes
    )


@torch.no_grad()
def difference(theirs, ours, image):
    """Largest difference of CLS features on an image, and on a still video of it."""
    frame = clip_for("google", (1, 3, 1, image, image))
    expected = theirs.eval().forward_features(frame[:, :, 0])[:, 0]
    features = ours.eval().model.forward_features(frame.expand(-1, -1, 2, -1, -1))
    return (features - expected).abs().max().item()


# ------------------------------------------------------------------------------ Google's .npz


@pytest.mark.parity
@pytest.mark.parametrize(
    ("size", "patch", "depth"),
    [
        ("Ti", 16, 12),
        ("B", 16, 2),
        ("B", 32, 2),
        pytest.param("B", 16, 12, marks=pytest.mark.slow),
        pytest.param("B", 32, 12, marks=pytest.mark.slow),
    ],
)
def test_google_npz_gives_the_features_that_timm_gives(size, patch, depth, tmp_path):
    path = save(tmp_path / "vit.npz", google_vit(size, patch, 224, depth))
    theirs, ours = timm_vit(size, patch, 224, depth), our_vit(size, patch, 224, depth)
    theirs.load_pretrained(str(path))
    report = load_pretrained(ours, path)
    assert difference(theirs, ours, 224) < SAME
    assert torch.equal(ours.model.head.weight, theirs.head.weight)
    assert len(report.loaded) == len(ours.state_dict())


@pytest.mark.parity
@pytest.mark.parametrize("patch", [16, 32])
def test_google_npz_at_another_image_size(patch, tmp_path):
    """Timm reads the file and resizes; how is told, because by itself its reader is bilinear."""
    path = save(tmp_path / "vit.npz", google_vit("Ti", patch, 224, 2))
    stored, theirs = timm_vit("Ti", patch, 224, 2), timm_vit("Ti", patch, 288, 2)
    stored.load_pretrained(str(path))
    state, grid = stored.state_dict(), [288 // patch] * 2
    state["pos_embed"] = timm.layers.resample_abs_pos_embed(
        state["pos_embed"], grid, interpolation="bicubic", antialias=False
    )
    theirs.load_state_dict(state)
    ours = our_vit("Ti", patch, 288, 2)
    assert load_pretrained(ours, path).resized == ("pos_embed",)
    assert difference(theirs, ours, 288) < SAME


@pytest.mark.parity
def test_google_npz_at_another_image_size_as_timm_resizes_by_itself(tmp_path):
    path = save(tmp_path / "vit.npz", google_vit("Ti", 16, 224, 2))
    theirs, ours = timm_vit("Ti", 16, 288, 2), our_vit("Ti", 16, 288, 2)
    theirs.load_pretrained(str(path))
    load_pretrained(ours, path, pos_embed_resize="bilinear")
    assert difference(theirs, ours, 288) < SAME


@pytest.mark.parity
@pytest.mark.parametrize(
    ("prefix", "options"),
    [
        ("", {}),
        ("opt/target/", {}),
        ("params/", {"big_vision": True}),
        ("", {"big_vision": True}),
        ("params/", {"big_vision": True, "stacked": True}),
        ("params/img/", {"big_vision": True}),
    ],
)
def test_every_prefix_and_numbering(prefix, options, tmp_path):
    path = save(tmp_path / "vit.npz", google_vit(image=64, **options), prefix)
    theirs, ours = timm_vit("Ti", 16, 64, 2), our_vit("Ti", 16, 64, 2, "divided_space_time")
    try:
        theirs.load_pretrained(str(path))
    except KeyError:
        pytest.skip("this version of timm can't read it")
    report = load_pretrained(ours, path)
    assert difference(theirs, ours, 64) < 2e-6
    assert (len(report.copied), len(report.zeroed)) == (12, 5)


def test_map_head_text_tower_and_optimizer_are_ignored(tmp_path):
    arrays = google_vit(image=64, big_vision=True, cls=False)
    extra = {
        "params/img/MAPHead_0/probe": np.ones((1, 1, 192), np.float32),
        "params/txt/head/bias": np.ones(3, np.float32),
        "params/t": np.ones(1, np.float32),
    }
    np.savez(tmp_path / "siglip.npz", **{f"params/img/{k}": v for k, v in arrays.items()}, **extra)
    ours = our_vit("Ti", 16, 64, 2, "divided_space_time")
    fresh = {k: v.clone() for k, v in ours.model.state_dict().items()}
    report = load_pretrained(ours, tmp_path / "siglip.npz")
    assert report.ignored == ("params/txt/head/bias", "params/t", "MAPHead_0/probe")
    # Such a model pools its tokens: CLS and its position stay as initialised.
    assert report.missing[0] == "cls_token"
    assert report.missing[1:] == report.unexpected  # its head reads the tokens' mean
    assert report.resized == ("pos_embed",)
    assert torch.equal(ours.model.pos_embed[:, :1], fresh["pos_embed"][:, :1])
    stored = torch.from_numpy(arrays["pos_embedding"])
    assert torch.equal(ours.model.pos_embed[:, 1:], stored)


def test_pre_logits_are_ignored_and_another_head_stays_out(tmp_path):
    arrays = google_vit(image=64, classes=21) | {
        "pre_logits/kernel": np.ones((192, 192), np.float32),
        "pre_logits/bias": np.ones(192, np.float32),
    }
    report = load_pretrained(our_vit("Ti", 16, 64, 2), save(tmp_path / "21k.npz", arrays))
    assert report.ignored == ("pre_logits.fc.weight", "pre_logits.fc.bias")
    assert report.unexpected == report.missing == ("head.weight", "head.bias")


def test_bfloat16_arrays(tmp_path):
    arrays = google_vit(image=64)
    halves = {
        key: torch.from_numpy(x).bfloat16().view(torch.int16).numpy().view("V2")
        for key, x in arrays.items()
    }
    ours = our_vit("Ti", 16, 64, 2)
    load_pretrained(ours, save(tmp_path / "half.npz", halves))
    expected = torch.from_numpy(arrays["head/kernel"]).bfloat16().float().T
    assert torch.equal(ours.model.head.weight, expected)


def test_npz_is_known_by_its_content(tmp_path):
    path = save(tmp_path / "vit.npz", google_vit(image=64))
    report = load_pretrained(our_vit("Ti", 16, 64, 2), path.rename(tmp_path / "vit.weights"))
    assert not report.missing


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: a.update({"conv_root/kernel": np.ones(1)}), "ResNet stem.*ViT-B_16.npz"),
        (
            lambda a: a.pop("Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/kernel"),
            "attention of encoderblock_1 lacks key/kernel",
        ),
        (
            lambda a: a.update({"Transformer/encoderblock_0/Moe_0/kernel": np.ones(1)}),
            "encoderblock_0/Moe_0/kernel: not a part of a plain ViT's block",
        ),
        (lambda a: a.pop("head/bias"), "head.bias: missing in the file"),
        (lambda a: a.pop("embedding/kernel"), "something that isn't a ViT"),
        (lambda a: a.update({"cls": np.array([{}])}), "not a readable .npz file of plain arrays"),
    ],
)
def test_what_is_wrong_with_an_npz_is_one_line(change, complaint, tmp_path):
    arrays = google_vit(image=64)
    change(arrays)
    path = save(tmp_path / "wrong.npz", arrays)
    with pytest.raises(WeightsError, match=rf"wrong\.npz: .*{complaint}") as caught:
        load_pretrained(our_vit("Ti", 16, 64, 2), path)
    assert "\n" not in str(caught.value)
    assert "allow_pickle" not in str(caught.value)  # numpy's message says how to run it


def test_damaged_npz(tmp_path):
    whole = save(tmp_path / "whole.npz", google_vit(image=64)).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"half\.npz: not a readable \.npz"):
        load_pretrained(our_vit("Ti", 16, 64, 2), tmp_path / "half.npz")
    flipped = bytearray(whole)
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        middle = archive.infolist()[0].header_offset + 500
    flipped[middle] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(WeightsError, match=r"flipped\.npz: not a readable \.npz.*CRC"):
        load_pretrained(our_vit("Ti", 16, 64, 2), tmp_path / "flipped.npz")


# ------------------------------------------------------------------------------ Hugging Face


def video_model(attention_type="divided_space_time", **changes):
    arguments = {"img_size": 64, "num_classes": 10, "num_frames": 4, "embed_dim": 96}
    arguments |= {"depth": 3, "num_heads": 3, "attention_type": attention_type}
    model = TimeSformer(**(arguments | changes))
    fill_(model.model, seed=3)
    return model.eval()


def bundle_of(model, **more):
    return Bundle(model.model.state_dict(), model.architecture, **more)


def transformers_logits(folder, clip):
    from transformers import TimesformerForVideoClassification

    theirs, info = TimesformerForVideoClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        return theirs.eval()(clip.transpose(1, 2)).logits


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("scheme", ["divided_space_time", "joint_space_time"])
def test_hugging_face_and_back(scheme, tmp_path):
    model, clip = video_model(scheme), clip_for("hf", (2, 3, 4, 64, 64), 3)
    names = tuple("abcdefghij")
    folder = tmp_path / "hf"
    write_hugging_face(folder, bundle_of(model, preprocessing=K400, class_names=names))
    with torch.no_grad():
        largest = (transformers_logits(folder, clip) - model(clip)).abs().max().item()
    assert largest < 1e-5, largest

    back = read_bundle(folder)
    assert back.state.keys() == model.model.state_dict().keys()
    assert all(torch.equal(v, back.state[k]) for k, v in model.model.state_dict().items())
    # Theirs doesn't carry the rate.
    assert back.architecture == replace(model.architecture, drop_path_rate=0.0)
    assert back.class_names == names
    assert back.preprocessing == K400 | {"short_side": 64, "crop_size": 64}

    # The file alone, without its folder, and one that an older `transformers` pickled.
    for name in ("alone.safetensors", "pytorch_model.bin"):
        alone = tmp_path / name
        if name.endswith(".bin"):
            state = dict(load_safetensors(folder / "model.safetensors"))
            torch.save(state, alone)
        else:
            alone.write_bytes((folder / "model.safetensors").read_bytes())
        other = tiny_model(scheme)
        report = load_pretrained(other, alone)
        assert len(report.loaded) == len(other.state_dict())


def load_safetensors(path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_hugging_face_processor_does_what_the_weights_expect(order, tmp_path):
    from transformers import AutoImageProcessor

    model = video_model()
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    preprocessing = {"mean": mean, "std": std, "channel_order": order, "short_side": 80}
    write_hugging_face(tmp_path, bundle_of(model, preprocessing=preprocessing))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (80, 96, 3), np.uint8) for _ in range(4)]  # RGB
    pixels = torch.as_tensor(processor(frames, return_tensors="pt")["pixel_values"])
    assert pixels.shape == (1, 4, 3, 64, 64)
    theirs = transformers_logits(tmp_path, pixels.transpose(1, 2))

    centre = torch.from_numpy(np.stack(frames))[:, 8:72, 16:80].permute(3, 0, 1, 2) / 255
    clip = centre if order == "RGB" else centre.flip(0)
    column = (3, 1, 1, 1)
    clip = (clip - torch.tensor(mean).view(column)) / torch.tensor(std).view(column)
    with torch.no_grad():
        torch.testing.assert_close(theirs, model(clip[None]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"attention_type": "space_only"}, "but not space_only"),
        ({"attention_type": "parallel_space_time"}, "but not parallel"),  # has divided's names
        ({"cls_in_time": True}, "without CLS in time"),
        ({"tubelet_size": 2}, "no tubelets"),
        ({"img_size": (64, 96)}, "frames are square"),
        ({"num_classes": 0}, r"needs classifier|needs head\.bias, head\.weight"),
        ({"pos_embed_type": "space"}, "needs time_embed"),
    ],
)
def test_what_hugging_face_cannot_compute_is_refused(arguments, complaint, tmp_path):
    bundle = bundle_of(video_model(**arguments), preprocessing=K400)
    with pytest.raises(WeightsError, match=complaint):
        write_hugging_face(tmp_path / "hf", bundle)
    assert not (tmp_path / "hf").exists()


def test_unknown_preprocessing_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="how its frames are normalised"):
        write_hugging_face(tmp_path / "hf", bundle_of(video_model()))


def test_temporal_layers_that_a_joint_model_never_used_are_left_out():
    divided = hugging_face.from_native(video_model().model.state_dict())
    config = {"attention_type": "joint_space_time"}
    state = native_state(hugging_face.without_unused(divided, config))[0]
    assert not load_pretrained(tiny_model("joint_space_time"), state).missing
    kept = hugging_face.without_unused(divided, {"attention_type": "divided_space_time"})
    assert kept.keys() == divided.keys()


# ------------------------------------------------------------------------------ mmaction2


@pytest.mark.parametrize("scheme", ["divided_space_time", "joint_space_time", "space_only"])
def test_mmaction2_and_back(scheme, tmp_path):
    model = video_model(scheme)
    write_mmaction2(tmp_path / "mm.pth", bundle_of(model))
    content = torch.load(tmp_path / "mm.pth", weights_only=True)
    assert not {"backbone.cls_token", "cls_head.fc_cls.weight"} - content["state_dict"].keys()
    assert not any("blocks" in key or "qkv" in key for key in content["state_dict"])
    other = tiny_model(scheme)
    report = load_pretrained(other, tmp_path / "mm.pth")
    assert len(report.loaded) == len(other.state_dict())
    for key, value in model.model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    assert read_bundle(tmp_path / "mm.pth", num_heads=3).architecture.attention_type == scheme


@torch.no_grad()
def test_mmaction2_block_built_of_torch_parts_computes_the_same():
    """Their names on torch.nn.MultiheadAttention, Linear and LayerNorm: time, space, MLP."""
    ours = video_model().model
    state = mmaction2.from_native(ours.state_dict())
    layer = "backbone.transformer_layers.layers.1."
    theirs = {k.removeprefix(layer): v for k, v in state.items() if k.startswith(layer)}
    used = set()

    def module(cls, name, *args, **kwargs):
        part = cls(*args, **kwargs)
        own = {key: theirs[f"{name}.{key}"] for key in part.state_dict()}
        used.update(f"{name}.{key}" for key in own)
        part.load_state_dict(own)
        return part.eval()

    def attend(step, x):
        attention = module(
            nn.MultiheadAttention, f"attentions.{step}.attn", 96, 3, batch_first=True
        )
        x = module(nn.LayerNorm, f"attentions.{step}.norm", 96, eps=1e-6)(x)
        return attention(x, x, x, need_weights=False)[0]

    B, T, N = 2, 4, 6  # patches of a 2×3 grid
    x = tensor_for("tokens", (B, 1 + N * T, 96))
    cls, patches = x[:, :1], x[:, 1:].reshape(B * N, T, 96)
    time = module(nn.Linear, "attentions.0.temporal_fc", 96, 96)(attend(0, patches))
    patches = (patches + time).reshape(B, N, T, 96)
    frames = patches.transpose(1, 2).reshape(B * T, N, 96)
    step = attend(1, torch.cat([cls.repeat_interleave(T, 0), frames], 1)).reshape(B, T, 1 + N, 96)
    cls = cls + step[:, :, :1].mean(1)
    patches = patches + step[:, :, 1:].transpose(1, 2)
    x = torch.cat([cls, patches.reshape(B, N * T, 96)], 1)
    hidden = module(nn.LayerNorm, "ffns.0.norm", 96, eps=1e-6)(x)
    hidden = module(nn.Linear, "ffns.0.layers.0.0", 96, 384)(hidden)
    x = x + module(nn.Linear, "ffns.0.layers.1", 384, 96)(nn.functional.gelu(hidden))

    from timesformer.models.attention import TokenGrid

    expected = ours.blocks[1](tensor_for("tokens", (B, 1 + N * T, 96)), TokenGrid(B, T, 2, 3))
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)
    assert used == theirs.keys()


def test_mmaction2_backbone_alone_and_its_pixel_statistics():
    state = mmaction2.from_native(video_model().model.state_dict())
    backbone = {k.removeprefix("backbone."): v for k, v in state.items() if "cls_head" not in k}
    backbone["data_preprocessor.mean"] = torch.zeros(3)
    report = load_pretrained(tiny_model("divided_space_time"), {"state_dict": backbone})
    assert report.missing == ("head.weight", "head.bias")
    assert report.ignored == ("data_preprocessor.mean",)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"attention_type": "axial"}, "no axial attention"),
        ({"attention_type": "parallel_space_time"}, "no parallel_space_time attention"),
        ({"cls_in_time": True}, "no cls_in_time"),
        ({"tubelet_size": 2}, "no tubelet_size"),
        ({"pos_embed_type": "none"}, "needs pos_embed"),
    ],
)
def test_what_mmaction2_lacks_is_refused(arguments, complaint, tmp_path):
    with pytest.raises(WeightsError, match=complaint):
        write_mmaction2(tmp_path / "mm.pth", bundle_of(video_model(**arguments)))
    assert not (tmp_path / "mm.pth").exists()


def test_an_unknown_name_of_a_known_layout_is_reported():
    for layout in (hugging_face, mmaction2):
        state = layout.from_native(video_model().model.state_dict())
        assert layout.matches(state)
        assert not google_npz.matches(state)
        state["backbone.extra.weight"] = torch.ones(1)
        with pytest.raises(WeightsError, match=r"backbone\.extra\.weight: \(1,\) in the file, not"):
            load_pretrained(tiny_model("divided_space_time"), state)
