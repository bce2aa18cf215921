"""Weights made elsewhere: what they say of their input, layouts on the way, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from golden_recipe import fill_
from google_layout import google_vit
from safetensors.torch import load as safetensors_load
from safetensors.torch import load_file, save_file
from safetensors.torch import save as safetensors_save
from test_formats import K400, bundle_of, difference, our_vit, timm_vit, video_model
from timm.models.vision_transformer import VisionTransformer as TimmViT

from timesformer.models.weights.bundle import read_bundle
from timesformer.models.weights.files import read_file
from timesformer.models.weights.formats import hugging_face, native_state
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.save import write_hugging_face, write_mmaction2
from timesformer.models.weights.sources import read_weights
from timesformer.utils.errors import WeightsError

HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
SSV2 = tuple(f"Moving something number {i}" for i in range(174))


@pytest.fixture
def folder(tmp_path):
    """A folder that `transformers` reads."""
    path = tmp_path / "hf"
    write_hugging_face(path, bundle_of(video_model(), preprocessing=K400))
    return path


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------------- what is said of input


def test_something_something_from_the_hub_takes_what_the_published_file_takes(tmp_path, caplog):
    model = video_model(num_classes=174)
    kept = {k: v.clone() for k, v in model.model.state_dict().items()}
    written = bundle_of(model, preprocessing=K400 | {"channel_order": "BGR"}, class_names=SSV2)
    write_hugging_face(tmp_path / "ours", written)
    ours = read_bundle(tmp_path / "ours")
    assert ours.preprocessing["channel_order"] == "RGB"  # its kernels were turned round
    patch = "patch_embed.proj.weight"
    assert torch.equal(ours.state[patch], kept[patch].flip(1))

    # The hub's folder: the same names, kernels as in the published file, and no mark.
    hub = tmp_path / "hub"
    shutil.copytree(tmp_path / "ours", hub)
    processor = json.loads((hub / "preprocessor_config.json").read_text())
    del processor["timesformer"]
    (hub / "preprocessor_config.json").write_text(json.dumps(processor))
    with caplog.at_level(logging.WARNING):
        assert read_bundle(hub).preprocessing["channel_order"] == "BGR"
    assert "taken for BGR" in caplog.text
    edit(hub / "config.json", id2label={str(i): f"class {i}" for i in range(174)})
    assert read_bundle(hub).preprocessing["channel_order"] == "RGB"


@pytest.mark.parametrize("scheme", ["divided_space_time", "space_only"])
def test_mmaction2_takes_pixels_from_minus_one_to_one(scheme, tmp_path):
    write_mmaction2(tmp_path / "mm.pth", bundle_of(video_model(scheme), preprocessing=None))
    assert read_weights(tmp_path / "mm.pth")["preprocessing"] == HALVES
    stored = torch.load(tmp_path / "mm.pth", weights_only=True)
    stored["state_dict"]["data_preprocessor.mean"] = torch.full((3, 1, 1), 51.0)
    torch.save(stored, tmp_path / "own.pth")
    assert read_weights(tmp_path / "own.pth")["preprocessing"] == HALVES | {"mean": [0.2] * 3}


def test_google_files_and_published_ones_say_what_they_take(tmp_path):
    np.savez(tmp_path / "vit.npz", **google_vit(image=64))
    assert read_weights(tmp_path / "vit.npz")["preprocessing"] == HALVES
    state = {f"model.{k}": v for k, v in video_model().model.state_dict().items()}
    cfg = "DATA: {MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225]}\nTRAIN: {DATASET: ssv2}"
    torch.save({"model_state": state, "cfg": cfg}, tmp_path / "published.pyth")
    said = read_weights(tmp_path / "published.pyth")["preprocessing"]
    assert said == K400 | {"channel_order": "BGR"}


def test_timm_says_the_statistics_of_its_model(monkeypatch):
    vit = timm_vit("Ti", 16, 64, 2)
    vit.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: vit)
    said = read_weights("timm/vit_base_patch16_224.mae")["preprocessing"]
    assert said["mean"] == [0.485, 0.456, 0.406]
    assert said["std"] == [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
    ("files", "mean"),
    [
        ({"video_preprocessor_config.json": 0.1}, 0.1),
        ({"preprocessor_config.json": 0.2, "video_preprocessor_config.json": 0.1}, 0.1),
        ({"processor_config.json": 0.3, "video_preprocessor_config.json": 0.1}, 0.3),
        ({}, None),
    ],
)
def test_every_place_of_the_processor(files, mean, folder, caplog):
    plain = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    for name, value in files.items():
        said = plain | {"image_mean": [value] * 3}
        nested = {"video_processor": said} if name == "processor_config.json" else said
        (folder / name).write_text(json.dumps(nested))
    with caplog.at_level(logging.WARNING):
        found = read_bundle(folder).preprocessing
    assert (found or {}).get("mean") == (mean and [mean] * 3)
    assert ("how its frames are normalised is unknown" in caplog.text) == (mean is None)


# ------------------------------------------------------------------- folders of transformers


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_frames": 16}, "num_frames is 16"),
        ({"image_size": 96}, "image_size is 96"),
        ({"patch_size": 8}, "patch_size is 8, which asks for 8 pixels, and the weights have 16"),
        (
            {"id2label": {"0": "a", "1": "b"}},
            r"id2label is 2, .* weights have 10",
        ),
        ({"id2label": None, "num_labels": 400}, "num_labels is 400"),
        ({"hidden_size": 192}, "hidden_size is 192"),
        ({"num_hidden_layers": 2}, "num_hidden_layers is 2"),
        ({"intermediate_size": 768}, "intermediate_size is 768"),
        ({"patch_size": 0}, "patch_size is 0, not a whole number above 0"),
        ({"image_size": "64"}, "image_size is '64', not a whole number"),
    ],
)
def test_a_config_that_its_weights_deny_is_refused_as_transformers_does(changes, complaint, folder):
    edit(folder / "config.json", **changes)
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(video_model(), folder)


def test_space_only_of_transformers_is_told_to_differ(folder, caplog):
    edit(folder / "config.json", attention_type="space_only")
    with caplog.at_level(logging.WARNING):
        read_weights(folder)
    assert "doesn't average over frames" in caplog.text


def test_weights_in_several_files(folder):
    expected = read_bundle(folder).state
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    places = {k: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, k in enumerate(names)}
    for place in set(places.values()):
        save_file({k: state[k] for k in names if places[k] == place}, folder / place)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    found = read_bundle(folder).state
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    for wrong in ("../x.safetensors", "/etc/passwd", ".."):
        index.write_text(json.dumps({"weight_map": places | {names[0]: wrong}}))
        with pytest.raises(WeightsError, match="isn't a file of its folder"):
            read_weights(folder)


# ------------------------------------------------------------------------ image models' layouts


@pytest.mark.parity
def test_cls_without_a_position_as_timm_has_it(tmp_path):
    theirs = TimmViT(
        64, 16, embed_dim=192, depth=2, num_heads=3, num_classes=7, no_embed_class=True
    )
    fill_(theirs, seed=5)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    ours = our_vit("Ti", 16, 64, 2)
    report = load_pretrained(ours, tmp_path / "vit.pth")
    assert not report.resized
    assert difference(theirs, ours, 64) < 2e-6


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["lit", "training", "transformer", "flat"])
def test_other_ways_of_google(layout, tmp_path):
    plain = google_vit(image=64, big_vision=layout != "flat")
    prefix = "" if layout == "flat" else "params/"  # timm before 1.0.29 knows big_vision by it
    np.savez(tmp_path / "plain.npz", **{f"{prefix}{k}": v for k, v in plain.items()})
    arrays = dict(plain)
    if layout == "lit":
        arrays = {f"img/{k}": v for k, v in plain.items()}
        arrays |= {"txt/head/kernel": np.ones((2, 2), np.float32), "t": np.ones(1, np.float32)}
    elif layout == "training":
        arrays = {f"params/{k}": v for k, v in plain.items()}
        arrays |= {"opt/0/0/mu/head/bias": np.ones(7, np.float32)}
    elif layout == "transformer":
        arrays["Transformer/pos_embedding"] = arrays.pop("pos_embedding")
    else:
        kernel = plain["embedding/kernel"]
        arrays["embedding/kernel"] = kernel.reshape(-1, kernel.shape[-1])
    np.savez(tmp_path / "vit.npz", **arrays)
    theirs, ours = timm_vit("Ti", 16, 64, 2), our_vit("Ti", 16, 64, 2)
    theirs.load_pretrained(str(tmp_path / "plain.npz"))
    load_pretrained(ours, tmp_path / "vit.npz")
    assert difference(theirs, ours, 64) < 2e-6


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "visual.", "module.backbone."])
def test_a_vit_inside_another_model(prefix):
    state = dict(video_model().model.state_dict())
    found, _ = native_state({prefix + k: v for k, v in state.items()})
    assert found.keys() == state.keys()


def test_of_student_and_teacher_the_teacher(caplog):
    state = dict(video_model().model.state_dict())
    student = {f"module.backbone.{k}": v + 1 for k, v in state.items()}
    teacher = {f"backbone.{k}": v for k, v in state.items()}
    with caplog.at_level(logging.INFO):
        found, _ = native_state({"student": student, "teacher": teacher, "epoch": 3})
    assert all(torch.equal(found[k], v) for k, v in state.items())
    assert "the teacher's weights are taken" in caplog.text


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("dist_token", "a distilled DeiT"),
        ("head_dist.weight", "a distilled DeiT"),
        ("reg_token", "register tokens"),
        ("register_tokens", "register tokens"),
        ("encoder.layers.encoder_layer_0.ln_1.weight", "a ViT of torchvision .* take one of timm"),
        ("blocks.0.timeattn.qkv.weight", "Frozen in Time, EgoVLP or LaViLa"),
        ("visual.blocks.0.timeattn.qkv.weight", "Frozen in Time, EgoVLP or LaViLa"),
    ],
)
def test_models_that_compute_something_else_are_named(name, complaint):
    state = dict(video_model().model.state_dict()) | {name: torch.ones(1, 1, 96)}
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(video_model(), state)


# ------------------------------------------------------------------------------- hostile files


def _npz(path, shape, data=b"\0" * 64, dtype="<f4", packed=zipfile.ZIP_STORED):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("a.npy", header.getvalue() + data)
    return path


def test_sizes_are_checked_before_they_are_allocated(tmp_path):
    with pytest.raises(WeightsError, match=r"a\.npy isn't as large as it says"):
        read_weights(_npz(tmp_path / "huge.npz", (10**12,)))
    bomb = bytes(1 << 24)
    path = _npz(tmp_path / "bomb.npz", (1 << 22,), bomb, packed=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="over 200 times as large"):
        read_weights(path)


@pytest.mark.parametrize(
    ("header", "data", "complaint"),
    [
        (struct.pack("<Q", 1 << 60) + b"{}", bytes(50), "shorter than its header says"),
        ({"a": [0, 8], "b": [8, 17]}, bytes(16), "b doesn't follow"),  # cut short
        ({"a": [0, 8], "b": [0, 8]}, bytes(16), "b doesn't follow"),
        ({"a": [0, 8], "b": [9, 17]}, bytes(17), "b doesn't follow"),
        ({"a": [8, 0]}, bytes(8), "a doesn't follow"),
        ({"a": [0, 1 << 60]}, bytes(8), "a doesn't follow"),
        ({"a": [0, 8]}, bytes(9), "something behind"),
        ({"a": [0, 4]}, bytes(4), ""),  # less than its shape
        ({"a": [0.0, 8.0]}, bytes(8), ""),
        ({"a": None}, bytes(8), ""),
        (struct.pack("<Q", 2) + b"[]", b"", ""),
        (struct.pack("<Q", 2) + b"{,", b"", ""),
    ],
    ids=range(12),
)
def test_a_safetensors_file_is_what_its_header_says(header, data, complaint, tmp_path):
    if isinstance(header, dict):
        of = {k: {"dtype": "F32", "shape": [2], "data_offsets": v} for k, v in header.items()}
        text = json.dumps(of).encode()
        header = struct.pack("<Q", len(text)) + text
    (tmp_path / "x.safetensors").write_bytes(header + data)
    with pytest.raises(WeightsError, match=f"not a readable safetensors file .*{complaint}"):
        read_weights(tmp_path / "x.safetensors")


def test_all_kinds_of_tensors_come_out_of_a_safetensors_file(tmp_path):
    kinds = (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
    state = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    state |= {"one": torch.tensor(2.5), "ünï": torch.ones(1)}
    none = {"none": torch.zeros(0, 4)}
    with contextlib.suppress(ValueError):  # of old versions of safetensors, which read no such
        state |= safetensors_load(safetensors_save(none))
    save_file(state, tmp_path / "x.safetensors")
    found = read_file(tmp_path / "x.safetensors")
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert found[name].equal(value)


@pytest.mark.parametrize("name", ["pipe.pth", "pipe.npz", "pipe.safetensors"])
def test_only_regular_files_are_opened(name, tmp_path, make_fifo):
    make_fifo(tmp_path / name)
    with pytest.raises(WeightsError, match="not a regular file"):
        read_weights(tmp_path / name)


def _itself():
    content = {}
    content["model_state"] = content
    return content


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cls_token": torch.ones(1, 1, 96, device="meta")}, "no numbers"),
        ({"cls_token": torch.full((1, 1, 96), float("nan"))}, "not finite"),
        ({"cls_token": torch.ones(1, 1, 96, dtype=torch.int8)}, "torch.int8"),
        ({"cls_token": torch.ones(1, 1, 96).to(torch.float8_e4m3fn)}, "float8.*16 bits or more"),
        ({"cls_token": torch.ones(1, 1, 96).to_sparse()}, "no plain tensor"),
        ({"cls_token": torch.ones(1).expand(10**6, 10**6, 96)}, "fewer numbers are stored"),
    ],
)
def test_tensors_that_are_no_weights_are_named(change, complaint):
    with pytest.raises(WeightsError, match=f"cls_token.*{complaint}"):
        load_pretrained(video_model(), dict(video_model().model.state_dict()) | change)


def test_a_file_that_holds_itself(tmp_path):
    with pytest.raises(WeightsError, match="without end"):
        load_pretrained(video_model(), _itself())
    torch.save(_itself(), tmp_path / "loop.pth")
    with pytest.raises(WeightsError, match="without end"):
        read_weights(tmp_path / "loop.pth")


# ------------------------------------------------------------------------------- what is assumed


@pytest.mark.parametrize("scheme", ["joint_space_time", "space_only"])
def test_one_file_of_hugging_face_says_what_is_assumed(tmp_path, caplog, scheme):
    """Without its config.json; each of the two in a line."""
    model = video_model(embed_dim=128, num_heads=4, attention_type=scheme)
    state = dict(model.model.state_dict())
    state.setdefault("time_embed", torch.zeros(1, 4, 128))
    theirs = hugging_face.from_native(state)
    if scheme == "space_only":
        theirs.pop("timesformer.embeddings.time_embeddings")
    save_file({k: v.contiguous() for k, v in theirs.items()}, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        architecture = read_bundle(tmp_path / "model.safetensors").architecture
    assert (architecture.attention_type, architecture.num_heads) == (scheme, 2)
    assert len([line for line in caplog.messages if "taken for 2, each 64 wide" in line]) == 1
    said = [line for line in caplog.messages if "doesn't average over frames" in line]
    assert len(said) == (scheme == "space_only")
    caplog.clear()
    read_bundle(tmp_path / "model.safetensors", num_heads=4)
    assert "64 wide" not in caplog.text


def test_vits_of_torchvision_arent_fetched_for_nothing(monkeypatch):
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetched)
    with pytest.raises(
        WeightsError, match=r"torchvision/vit_b_16: a ViT of torchvision .* of timm"
    ):
        read_weights("torchvision/vit_b_16")
