"""Models by name, and to and from folders; nothing is fetched."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from golden_recipe import clip_for, fill_
from small_run import ROOT
from video_fixtures import numbered_frames, write_video

import timesformer
from timesformer.models import create as hub
from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.bundle import Bundle
from timesformer.models.weights.save import write_hugging_face
from timesformer.prepare.transcode import TranscodeSettings, transcode
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.files import temporary_of

SMALL = {"img_size": 32, "num_classes": 3, "num_frames": 4, "embed_dim": 24, "depth": 2}
SMALL |= {"num_heads": 3}
BGR = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "channel_order": "BGR"}


def small_model(**changes):
    return fill_(TimeSformer(**(SMALL | changes))).eval()


@pytest.mark.parametrize(
    "changes",
    [
        *({"attention_type": name} for name, _ in ATTENTION_REGISTRY),
        {"cls_in_time": True},
        {"attention_type": "sparse_local_global", "local_window": "centred"},
        {"tubelet_size": 2, "patch_size": 8},
        {"pos_embed_type": "space"},
        {"pos_embed_type": "none"},
        {"img_size": (32, 48), "mlp_ratio": 2.0, "drop_path_rate": 0.25},
        {"num_classes": 0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_saved_and_loaded_is_the_same_model(changes, tmp_path):
    model = small_model(**changes)
    hub.save_pretrained(model, tmp_path / "a" / "b")
    again = hub.from_pretrained(tmp_path / "a" / "b")
    assert again.architecture == model.architecture
    assert {k: v.tolist() for k, v in again.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    clip = clip_for("hub", (1, 3, 4, 32, 32))
    with torch.no_grad():
        assert torch.equal(again(clip), model(clip))
    assert not again.training
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip


def test_preprocessing_and_class_names_travel(tmp_path):
    names = ["a", "ü", "c"]
    hub.save_pretrained(small_model(), tmp_path, preprocessing=BGR, class_names=names)
    model = hub.from_pretrained(tmp_path)
    assert model.preprocessing == BGR
    assert model.class_names == ("a", "ü", "c")
    hub.save_pretrained(model, tmp_path / "again")
    again = hub.from_pretrained(tmp_path / "again")
    assert (again.preprocessing, again.class_names) == (BGR, model.class_names)
    assert hub.from_pretrained(tmp_path, num_classes=5).class_names == ()
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"]["embed_dim"] == 24
    assert config["class_names"] == names


def test_weights_that_are_read_are_not_drawn_before(tmp_path):
    """Drawing took longer than reading; those that a file lacks are drawn as ever."""
    hub.save_pretrained(small_model(), tmp_path)
    before = torch.get_rng_state()
    hub.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    head = hub.from_pretrained(tmp_path, num_classes=5).get_classifier()
    assert head.weight.std() > 0.01


def test_overrides_resize_and_start_afresh(tmp_path, caplog):
    hub.save_pretrained(small_model(), tmp_path)
    with caplog.at_level("INFO"):
        model = hub.from_pretrained(tmp_path, num_frames=8, num_classes=5, img_size=48)
    assert model.model.time_embed.shape == (1, 8, 24)
    assert "resized 2 (pos_embed, time_embed)" in caplog.text
    assert "missing 2 (head.weight, head.bias)" in caplog.text


def test_what_does_not_make_sense_to_save(tmp_path):
    with pytest.raises(ConfigError, match="2 class names for 3 classes"):
        hub.save_pretrained(small_model(), tmp_path, class_names=["a", "b"])
    with pytest.raises(ConfigError, match="save_pretrained: the preprocessing lacks std"):
        hub.save_pretrained(small_model(), tmp_path, preprocessing={"mean": [0.5] * 3})
    with pytest.raises(ConfigError, match="is needed, not Linear"):
        hub.save_pretrained(torch.nn.Linear(2, 2), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="can't write it"):
        hub.save_pretrained(small_model(), tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    hub.save_pretrained(small_model(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timesformer.models.weights.save.save_file", full)
    with pytest.raises(WeightsError, match="No space left"):
        hub.save_pretrained(fill_(small_model(), 7), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_are_never_beside_the_config_of_others(tmp_path, monkeypatch):
    """Whenever a save is killed."""
    names = ["model.safetensors", "preprocessor_config.json", "config.json"]
    for name in (*names, "README.md"):
        (tmp_path / name).write_text("old")
    bundle = Bundle(small_model().model.state_dict(), small_model().architecture, BGR, ())
    rename, seen = Path.replace, []

    def look(path, target):
        rename(path, target)
        there = [name for name in names if (tmp_path / name).exists()]
        seen.append({name: (tmp_path / name).read_bytes() == b"old" for name in there})

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", look)
        write_hugging_face(tmp_path, bundle)
    assert all(len(set(old.values())) == 1 for old in seen if "model.safetensors" in old)
    assert seen[-1] == dict.fromkeys(names, False)
    assert (tmp_path / "README.md").read_text() == "old"


@pytest.mark.parametrize("renames", range(6))
def test_a_save_that_fails_halfway_puts_back_what_was_there(renames, tmp_path, monkeypatch):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_text(name)
    bundle = Bundle(small_model().model.state_dict(), small_model().architecture, BGR, ())
    rename, targets = Path.replace, []

    def fail(path, target):
        targets.append(target)
        if len(targets) == renames + 1:
            raise OSError(5, "Input/output error")
        rename(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WeightsError, match="Input/output error"):
        write_hugging_face(tmp_path, bundle)
    said = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert said == {name: name for name in ("model.safetensors", "config.json")}


def test_what_a_killed_save_left_goes(tmp_path):
    ours = temporary_of(tmp_path / f"{tmp_path.name}.staged").name
    left = tmp_path / ours.replace(f".{os.getpid()}.", f".{2**22 + 1}.")  # of no process
    left.mkdir()
    (left / "model.safetensors").touch()
    hub.save_pretrained(small_model(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("nowhere/weights.pth", "no such weights file"),
        ("./nowhere", "no such weights file"),
        ("a/b/c", "no such weights file"),
        ("timm/vit_tiny_patch16_225", "timm has no weights of that name"),
    ],
)
def test_from_pretrained_without_weights(source, complaint):
    with pytest.raises(WeightsError, match=complaint):
        hub.from_pretrained(source)


def test_from_pretrained_of_weights_that_are_no_vit(tmp_path):
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "fc.pth")
    with pytest.raises(WeightsError, match=r"fc\.pth: no model is known .* isn't a ViT"):
        hub.from_pretrained(tmp_path / "fc.pth")
    torch.save(small_model().state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ConfigError, match="num_heads must be a whole number, not 'many'"):
        hub.from_pretrained(tmp_path / "bare.pth", num_heads="many")
    torch.save(small_model(img_size=(32, 48)).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(WeightsError, match="nothing says their img_size"):
        hub.from_pretrained(tmp_path / "wide.pth", num_heads=3)


def test_a_config_that_does_not_belong_to_the_weights(tmp_path):
    hub.save_pretrained(small_model(attention_type="joint_space_time"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, complaint in (
        ({"attention_type": "divided_space_time"}, "its architecture asks for weights it lacks"),
        ({"num_heads": "three"}, "num_heads must be a whole number, not 'three'"),
        ({"heads": 3}, "the architecture has heads, which isn't known here"),
    ):
        wrong = config | {"architecture": config["architecture"] | changes}
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises((WeightsError, ConfigError), match=complaint):
            hub.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["hf/someone/model", "someone/model"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_hugging_face_hub(name, suffix, tmp_path, monkeypatch):
    import huggingface_hub

    model, calls = small_model(), []
    bundle = Bundle(model.model.state_dict(), model.architecture, BGR, ("a", "b", "c"))

    def snapshot_download(repository, allow_patterns):
        calls.append((repository, *allow_patterns))
        write_hugging_face(tmp_path, bundle)
        if suffix == "bin":
            state = timesformer.models.weights.sources.read_weights(tmp_path / "model.safetensors")
            torch.save(dict(state), tmp_path / "pytorch_model.bin")
            (tmp_path / "model.safetensors").unlink()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    fetched = hub.from_pretrained(name)
    assert fetched.class_names == ("a", "b", "c")
    assert fetched.preprocessing["channel_order"] == "RGB"  # its kernels are turned round
    assert fetched.preprocessing["mean"] == [0.3, 0.2, 0.1]
    clip = clip_for("hub", (1, 3, 4, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(fetched(clip.flip(1)), model(clip))
    assert calls[0] == ("someone/model", "*.json", "model.safetensors", "model-*.safetensors")
    assert len(calls) == (2 if suffix == "bin" else 1)


def test_hugging_face_hub_out_of_reach_or_not_installed(monkeypatch):
    import huggingface_hub

    def no_network(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(WeightsError, match=r"can't fetch hf/a/b \(no route\); .*co/a/b to a") as e:
        hub.from_pretrained("hf/a/b")
    assert "\n" not in str(e.value)
    with pytest.raises(
        WeightsError, match=r"^runs/nothing: no such file or folder here, and can't"
    ):
        hub.from_pretrained("runs/nothing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"needs huggingface_hub \(pip install .timesformer\["):
        hub.from_pretrained("hf/a/b")
    with pytest.raises(
        WeightsError, match=r"^runs/nothing: no such .* here, and hf/runs/nothing: "
    ):
        hub.from_pretrained("runs/nothing")


def test_list_models_has_registered_models_and_recipes():
    names = timesformer.list_models()
    assert names == sorted(set(names))
    assert {"vit_base_patch16_224", "timesformer_divST_8x32_224_K400"} <= set(names)
    assert timesformer.list_models("*divST*K600") == [
        "timesformer_divST_16x16_448_K600",
        "timesformer_divST_8x32_224_K600",
        "timesformer_divST_96x4_224_K600",
    ]
    assert len(timesformer.list_models("SSv2")) == 3
    assert timesformer.list_models("nothing*") == []


@pytest.mark.parametrize("name", sorted(hub.RECIPES))
def test_recipes_have_the_papers_parameters(name):
    with torch.device("meta"):
        model = timesformer.create_model(name)
    frames, classes = model.model.num_frames, model.model.num_classes
    side = model.architecture.img_size // 16
    base = 121_566_352 if "divST" in name else 86_112_400 if "jointST" in name else 86_106_256
    expected = base + (classes - 400) * 769
    expected += (frames - 8) * 768 + (side**2 - 14**2) * 768
    assert sum(p.numel() for p in model.parameters()) == expected
    assert len(model.class_names) == classes
    assert model.preprocessing["channel_order"] == ("BGR" if "SSv2" in name else "RGB")


def test_recipe_with_a_file_and_other_classes(tmp_path):
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32}
    name = "timesformer_divST_8x32_224_K400"
    with pytest.raises(ConfigError, match="no argument 'pretrained_model'"):
        timesformer.create_model(name, pretrained_model="x")
    source = timesformer.create_model(name, **sizes)
    torch.save({"model_state": source.state_dict()}, tmp_path / "k400.pyth")
    model = timesformer.create_model(name, pretrained=tmp_path / "k400.pyth", **sizes)
    assert torch.equal(model.model.head.weight, source.model.head.weight)
    assert model.class_names[0] == "abseiling"
    other = timesformer.create_model(name, tmp_path / "k400.pyth", num_classes=10, **sizes)
    assert other.class_names == ()
    assert other.preprocessing["mean"] == [0.45] * 3
    assert torch.equal(other.model.norm.weight, source.model.norm.weight)


def test_registered_models_with_overrides():
    model = timesformer.create_model("vit_base_patch16_224", **SMALL, attention_type="axial")
    assert model.architecture == TimeSformer(**SMALL, attention_type="axial").architecture


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        ("timesformer_divST_8x32_224_K401", {}, "did you mean timesformer_divST_8x32_224_K400"),
        ("vit_base_patch16_224", {"num_class": 3}, "did you mean num_classes"),
        ("vit_base_patch16_224", {"num_classes": "3"}, "num_classes must be a whole number"),
        ("vit_base_patch16_224", {"attention_type": "axia"}, "did you mean axial"),
        ("vit_base_patch16_224", {"init": "zeros"}, "init must be one of image, scratch"),
        ("vit_tiny_patch16_224", {"embed_dim": 96}, "of width, depth, heads"),
        ("timesformer_divST_8x32_224_K400", {"attention_type": "axia"}, "axia"),
    ],
)
def test_create_model_says_what_is_wrong(name, overrides, complaint):
    with torch.device("meta"), pytest.raises(ConfigError, match=complaint) as caught:
        timesformer.create_model(name, **overrides)
    assert "\n" not in str(caught.value)


def test_importing_the_package_is_light():
    program = (
        "import sys, timesformer; assert 'torch' not in sys.modules; "
        "assert {'create_model', 'TimeSformer'} <= set(dir(timesformer)); "
        "assert timesformer.create_model.__name__ == 'create_model'"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = timesformer.nothing


def test_hubconf_has_the_same_entry_points():
    found = runpy.run_path(str(ROOT / "hubconf.py"))
    assert found["create_model"] is timesformer.create_model
    assert found["list_models"] is timesformer.list_models
    assert found["from_pretrained"] is hub.from_pretrained
    assert all(find_spec(name) for name in found["dependencies"])


@pytest.mark.parametrize(
    ("name", "knob"),
    [("s3d", "depth"), ("vtn", "attention_type"), ("mvit_v1_b", "patch_size"), ("s3d", "init")],
)
def test_knobs_that_a_model_has_not(name, knob):
    """Whatever their value: who asks for ViT-B's depth of an S3D gets none, too."""
    value = getattr(hub.Architecture(), knob)
    with pytest.raises(ConfigError, match=rf"create_model: {name} has no '{knob}'; it is made"):
        timesformer.create_model(name, **{knob: value})


def test_overrides_of_a_file_are_those_its_model_has(tmp_path):
    model = timesformer.create_model("s3d", num_classes=3)
    hub.save_pretrained(model, tmp_path)
    with pytest.raises(ConfigError, match="s3d has no 'depth'"):
        hub.from_pretrained(tmp_path, depth=3)


def test_an_amplitude_of_minus_one_means_the_same_everywhere():
    """What `init` says, for a recipe as for a registered name."""
    for name in ("timesformer_divST_8x32_224_K400", "vit_base_patch16_224"):
        for init, amplitude in (("image", 0.0), ("scratch", 1.0)):
            model = timesformer.create_model(
                name, init=init, time_embed_amplitude=-1, embed_dim=24, depth=1, num_heads=3
            )
            assert model.model.time_embed.abs().max() == amplitude


def test_what_a_folder_says_of_its_input_goes_before_the_recipe(tmp_path):
    small = {"embed_dim": 24, "depth": 1, "num_heads": 3, "img_size": 32}
    name, names = "timesformer_divST_8x32_224_K400", [f"c{i}" for i in range(400)]
    source = timesformer.create_model(name, **small)
    said = source.preprocessing | BGR | {"sampling_rate": 4}
    hub.save_pretrained(source, tmp_path / "a", preprocessing=said, class_names=names)
    for model_name in (name, "vit_base_patch16_224"):
        model = timesformer.create_model(model_name, tmp_path / "a", **small)
        assert model.preprocessing == said
        assert model.class_names == tuple(names)
    hub.save_pretrained(source, tmp_path / "b", class_names=[])
    assert timesformer.create_model(name, tmp_path / "b", **small).class_names[0] == "abseiling"
    other = timesformer.create_model(name, tmp_path / "a", num_classes=3, **small)
    assert (other.preprocessing, other.class_names) == (said, ())
    # An image model's weights start what the recipe trains.
    image = timesformer.create_model(name, attention_type="space_only", **small)
    hub.save_pretrained(image, tmp_path / "image", preprocessing=BGR)
    model = timesformer.create_model(name, tmp_path / "image", **small)
    assert model.preprocessing == source.preprocessing
    assert model.class_names == source.class_names


def test_what_is_synced_may_be_written(tmp_path, monkeypatch):
    """Windows refuses to sync a file that is open for reading only."""
    fcntl, modes, sync = pytest.importorskip("fcntl"), [], os.fsync

    def synced(number):
        modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)
        sync(number)

    monkeypatch.setattr(os, "fsync", synced)
    small_model().save_pretrained(tmp_path / "folder")
    video = write_video(tmp_path / "a.mp4", numbered_frames(6))
    transcode(video, tmp_path / "b.mp4", TranscodeSettings())
    assert modes == [os.O_RDWR] * 3


def test_class_names_of_another_number_are_said(tmp_path, caplog):
    model = small_model()
    count = model.architecture.num_classes
    checkpoint = {"model_state": model.state_dict(), "architecture": model.architecture.to_json()}
    torch.save(checkpoint | {"class_names": ["a"] * (count + 1)}, tmp_path / "a.pyth")
    assert hub.from_pretrained(tmp_path / "a.pyth").class_names == ()
    assert f"{count + 1} class names for a head of {count} classes" in caplog.text
