"""Files as other programs write them, and storage that fails while they are read."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import fill_
from google_layout import google_vit
from safetensors.torch import save_file
from test_formats import K400, bundle_of, difference, our_vit, video_model
from timm.models.vision_transformer import VisionTransformer as TimmViT

from timesformer.config.defaults import get_cfg
from timesformer.models.create import create_model, from_pretrained
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.formats import hf_processor, native_state
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.save import save_pretrained, write_hugging_face, write_native
from timesformer.models.weights.sources import read_weights
from timesformer.utils import retry
from timesformer.utils.checkpoint import get_path_to_best, save_checkpoint
from timesformer.utils.errors import ConfigError, WeightsError

SIZES: dict[str, Any] = {
    "img_size": 32, "num_frames": 4, "num_classes": 3, "embed_dim": 24, "depth": 2, "num_heads": 3,
}  # fmt: skip


def state_of(model: TimeSformer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.model.state_dict().items()}


def changed(state: dict[str, torch.Tensor], by: float = 1.0) -> dict[str, torch.Tensor]:
    return {key: value + by for key, value in state.items()}


# --------------------------------------------------------------------- what programs write


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
def test_a_training_file_of_timm(average, tmp_path, caplog):
    """Its options are a Namespace, and what timm itself takes of it is the mean of the weights."""
    state = state_of(video_model())
    saved = {
        "epoch": 3,
        "arch": "vit_tiny_patch16_224",
        "state_dict": changed(state),
        "optimizer": {"state": {}, "param_groups": []},
        "version": 2,
        "args": argparse.Namespace(model="vit_tiny_patch16_224", lr=0.1, img_size=(3, 64)),
        average: {f"module.{key}": value for key, value in state.items()},
        "metric": 77.5,
    }
    torch.save(saved, tmp_path / "last.pth.tar")
    with caplog.at_level("INFO"):
        found, _ = native_state(read_weights(tmp_path / "last.pth.tar"))
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert f"{average} is taken" in caplog.text
    without = read_weights(tmp_path / "last.pth.tar") | {average: {}}
    assert torch.equal(native_state(without)[0]["cls_token"], state["cls_token"] + 1)


def test_the_mean_that_torchvision_keeps_counts_its_steps():
    state = state_of(video_model())
    mean = {f"module.{key}": value for key, value in state.items()} | {
        "n_averaged": torch.tensor(7)
    }
    report = load_pretrained(video_model(), {"model": changed(state), "model_ema": mean})
    assert (len(report.loaded), report.ignored) == (len(state), ("n_averaged",))


@pytest.fixture
def mmengine(monkeypatch) -> type:
    """Stand-in for mmengine's log of numbers, which its checkpoints hold."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    buffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = buffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return buffer


def test_a_training_file_of_mmengine_names_the_way_out(mmengine, tmp_path):
    hub = {"log_scalars": {"train/loss": mmengine()}, "runtime_info": {}, "resumed_keys": {}}
    torch.save({"state_dict": {}, "message_hub": hub}, tmp_path / "epoch_10.pth")
    with pytest.raises(WeightsError, match=r"epoch_10\.pth: .*mmengine.*publish_model\.py"):
        read_weights(tmp_path / "epoch_10.pth")


def dino_head() -> dict[str, torch.Tensor]:
    sizes = {"mlp.0": (64, 96), "mlp.2": (64, 64), "mlp.4": (16, 64), "last_layer": (128, 16)}
    return {f"head.{name}.weight": torch.ones(shape) for name, shape in sizes.items()}


def test_svt_and_endo_fm(tmp_path):
    """TimeSformers that were trained as DINO is: student and teacher, each with a head."""
    model = video_model(num_classes=0, embed_dim=192)
    state = state_of(model)
    teacher = {f"backbone.{key}": value for key, value in state.items()} | dino_head()
    student = {f"module.backbone.{key}": value + 1 for key, value in state.items()}
    args = argparse.Namespace(arch="timesformer")
    torch.save({"student": student, "teacher": teacher, "args": args}, tmp_path / "ssl.pth")
    again = from_pretrained(tmp_path / "ssl.pth", num_heads=3)
    assert again.architecture.num_classes == 0
    assert all(torch.equal(value, state[key]) for key, value in state_of(again).items())
    report = load_pretrained(video_model(embed_dim=192), tmp_path / "ssl.pth")
    assert report.missing == ("head.weight", "head.bias")
    assert report.unexpected == tuple(dino_head())
    assert len(report.loaded) == len(state)


def test_endo_fm_after_fine_tuning():
    """The classifier is a model of its own there, under the name that others give the whole."""
    state = state_of(video_model(num_classes=0))
    content = {
        "state_dict": {"module.linear.weight": torch.ones(2, 96)},
        "backbone_state_dict": {f"module.{key}": value for key, value in state.items()},
    }
    report = load_pretrained(video_model(), content)
    assert (len(report.loaded), report.missing) == (len(state), ("head.weight", "head.bias"))


@pytest.mark.parametrize("prefix", ["module.video_model.", "module.visual."])
def test_frozen_in_time_and_its_heirs_are_refused_by_name(prefix):
    state = {f"{prefix}{key}": value for key, value in state_of(video_model()).items()}
    state[f"{prefix}blocks.0.timeattn.proj.weight"] = torch.ones(96, 96)
    with pytest.raises(WeightsError, match="Frozen in Time, EgoVLP or LaViLa"):
        load_pretrained(video_model(), {"state_dict": state})


@pytest.mark.parity
@pytest.mark.parametrize("no_embed_class", [True, False], ids=["DeiT III", "DINOv2"])
def test_a_scale_behind_each_step_as_timm_has_it(no_embed_class, caplog):
    theirs = TimmViT(
        64, 16, embed_dim=192, depth=2, num_heads=3, num_classes=7, init_values=1e-5,
        no_embed_class=no_embed_class,
    )  # fmt: skip
    state = fill_(theirs, seed=5).state_dict()
    assert "blocks.1.ls2.gamma" in state
    for scheme in ("space_only", "divided_space_time"):
        ours = our_vit("Ti", 16, 64, 2, scheme)
        with caplog.at_level("INFO"):
            report = load_pretrained(ours, state | {"mask_token": torch.ones(1, 192)})
        assert report.ignored == ("mask_token",)
        assert difference(theirs, ours, 64) < 2e-6
    assert "is put into the projection" in caplog.text
    del state["blocks.1.mlp.fc2.bias"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.ls2\.gamma: \(192,\) in the file, not in"):
        load_pretrained(our_vit("Ti", 16, 64, 2), state)


def test_what_mae_trains_with_is_ignored():
    state = state_of(video_model())
    more = {"mask_token": torch.ones(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    report = load_pretrained(video_model(), {"model": state | more})
    assert report.ignored == tuple(more)


def test_another_hidden_width_is_named():
    other = TimeSformer(**(SIZES | {"mlp_ratio": 2.0}))
    with pytest.raises(WeightsError, match=r"MLP_RATIO 2,.*the model is .*MLP_RATIO 4,"):
        load_pretrained(TimeSformer(**SIZES), dict(other.state_dict()))


# --------------------------------------------------------------------- processors


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("VideoMAEImageProcessor", {}),
        ("VideoMAEImageProcessor", {"do_normalize": False}),
        ("VideoMAEImageProcessor", {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0]}),
        ("VideoMAEImageProcessor", {"rescale_factor": 1 / 127.5}),
        ("VivitImageProcessor", {}),
        ("VivitImageProcessor", {"offset": False, "rescale_factor": 1 / 255}),
        ("VivitImageProcessor", {"do_normalize": False}),
        ("TimesformerVideoProcessor", {"image_mean": [0.1, 0.2, 0.3]}),
    ],
    ids=str,
)
def test_pixels_are_what_the_processor_of_transformers_makes(name, changes, tmp_path):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, name):
        pytest.skip(f"this version of transformers has no {name}")
    model = video_model()
    write_hugging_face(tmp_path, bundle_of(model, preprocessing=K400))
    (tmp_path / "preprocessor_config.json").unlink()
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    processor = getattr(transformers, name)(**sizes, **changes)
    processor.save_pretrained(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    theirs = processor(list(frames), return_tensors="pt")["pixel_values"]
    theirs = torch.as_tensor(theirs).float().transpose(1, 2)  # (1, 3, T, H, W)
    ours = from_pretrained(tmp_path).transform(torch.from_numpy(frames))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 80, "crop_size": 64}, {"short_side": 80, "crop_size": 64}),  # older versions
        ({"size": {"shortest_edge": 80}, "do_center_crop": False}, {"short_side": 80}),
        ({"do_resize": False, "size": 80, "crop_size": 64}, {"crop_size": 64}),
        ({"size": {"height": 64, "width": 64}, "crop_size": {"height": 1, "width": 2}}, {}),
        ({"do_flip_channel_order": True}, {"channel_order": "BGR"}),
    ],
    ids=str,
)
def test_what_else_a_processor_says(changes, expected):
    said = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3, **changes}
    assert hf_processor.from_processor(said, {}) == K400 | expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"size": {"height": 64, "width": 64}, "do_center_crop": False}, "size {'height': 64"),
        ({"do_resize": False}, "do_resize is false"),
        ({"resample": 3}, "resample 3"),
        ({"crop_size": {"height": 64, "width": 80}}, "crop_size {'height': 64, 'width': 80}"),
    ],
    ids=str,
)
def test_what_a_processor_does_otherwise_is_told(changes, told, tmp_path, caplog):
    write_hugging_face(tmp_path, bundle_of(video_model(), preprocessing=K400))
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    read_weights(tmp_path)
    [*said] = [r.getMessage() for r in caplog.records if "makes frames of" in r.getMessage()]
    assert len(said) == bool(told)
    assert all(f"{path}: makes frames of {told}" in line for line in said)


@pytest.mark.parametrize("several", [True, False])
def test_several_labels_in_a_folder_of_transformers(several, tmp_path):
    """Its config.json says it; the word of our folders about themselves is older than training."""
    said = K400 | {"multi_label": several}
    write_hugging_face(tmp_path, bundle_of(video_model(), preprocessing=said))
    assert from_pretrained(tmp_path).testing.multi_label == several
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    kinds = {True: "multi_label_classification", False: "single_label_classification"}
    assert config["problem_type"] == kinds[several]
    path.write_text(json.dumps(config | {"problem_type": kinds[not several]}))
    assert from_pretrained(tmp_path).testing.multi_label != several
    path.write_text(json.dumps(config | {"problem_type": None}))
    assert from_pretrained(tmp_path).testing.multi_label == several


@pytest.mark.parametrize(
    "wrong", [{"rescale_factor": 0}, {"rescale_factor": "x"}, {"image_mean": 3}]
)
def test_a_processor_whose_numbers_make_no_sense(wrong, tmp_path):
    write_hugging_face(tmp_path, bundle_of(video_model(), preprocessing=K400))
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json: its numbers make no sense"):
        read_weights(tmp_path)


# --------------------------------------------------------------------- folders of runs


def run_in(folder, epochs: int) -> list[TimeSformer]:
    models = [fill_(TimeSformer(**SIZES), seed=seed).eval() for seed in range(epochs)]
    for epoch, model in enumerate(models):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        more = {"architecture": model.architecture.to_json()}
        save_checkpoint(folder, model, optimizer, epoch, get_cfg(), **more)
    return models


def test_the_folder_of_a_run_gives_its_newest_sound_checkpoint(tmp_path, caplog, monkeypatch):
    models = run_in(tmp_path / "runs" / "a", 3)
    newest = tmp_path / "runs/a/checkpoints/checkpoint_epoch_00003.pyth"
    newest.write_bytes(newest.read_bytes()[:-1])
    monkeypatch.chdir(tmp_path)  # "runs/a" looks like a name of the hub
    with caplog.at_level("INFO"):
        model = from_pretrained("runs/a")
    assert "checkpoint_epoch_00002.pyth" in caplog.text
    assert torch.equal(model.model.cls_token, models[1].model.cls_token)
    started = create_model("vit_base_patch16_224", pretrained="runs/a", **SIZES)
    assert torch.equal(started.model.cls_token, models[1].model.cls_token)
    assert TimeSformer.from_pretrained("runs/a").architecture == models[1].architecture


def test_a_run_without_a_sound_checkpoint(tmp_path):
    run_in(tmp_path, 1)
    (path,) = (tmp_path / "checkpoints").iterdir()
    path.rename(get_path_to_best(tmp_path))
    with pytest.raises(WeightsError, match="this run has no checkpoint that can be read"):
        from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"holds no weights: .* nor a run's checkpoints"):
        from_pretrained(tmp_path / "checkpoints")


# --------------------------------------------------------------------- options


@pytest.mark.parametrize("name", ["mvit_v1_b", "s3d"])
@pytest.mark.parametrize(
    "option",
    [{"pos_embed_resize": "legacy"}, {"time_embed_resize": "linear"}, {"tubelet_init": "average"}],
    ids=str,
)
def test_ways_to_fit_that_a_model_has_no_use_for_are_refused(name, option):
    with torch.device("meta"):
        model = create_model(name, num_frames=16, num_classes=3)
    with pytest.raises(ConfigError, match=f"{name} has no use for '{next(iter(option))}'"):
        load_pretrained(model, "never read", **option)
    with pytest.raises(WeightsError, match="no such weights file"):  # the default isn't asked for
        load_pretrained(model, "never read", pos_embed_resize="bicubic")


def test_no_preprocessing_can_be_said(tmp_path):
    model = TimeSformer(**SIZES)
    model.preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
    save_pretrained(model, tmp_path, preprocessing={})
    assert from_pretrained(tmp_path).preprocessing == {}


# --------------------------------------------------------------------- storage that fails


class Failing:
    """Files whose first operations, after so many that work, raise an error of the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, times: int) -> None:
        self.name, self.code, self.left, self.opened = name, code, times, io.open
        self.numbers: set[int] = set()
        os_open = os.open

        def open_number(path: Any, *args: Any, **kwargs: Any) -> int:
            number = os_open(path, *args, **kwargs)
            (self.numbers.add if self.is_it(path) else self.numbers.discard)(number)
            return number

        monkeypatch.setattr(os, "open", open_number)
        monkeypatch.setattr(io, "open", self)
        # Python 3.10 has a function of its own for this.
        monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: self(path, *args, **kwargs))
        monkeypatch.setattr(retry, "WAITS", (0, 0, 0))

    def is_it(self, path: Any) -> bool:
        return path in self.numbers or str(path).endswith(self.name)

    def fail(self) -> None:
        if self.left:
            self.left -= 1
            raise OSError(self.code, "storage")

    def __call__(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_it(path):
            self.fail()
        return self.opened(path, *args, **kwargs)


class FailingReads(Failing):
    """The same for reading from a file that is open."""

    def __call__(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        file = self.opened(path, *args, **kwargs)
        return _Reader(file, self) if self.is_it(path) else file


class _Reader(io.BufferedReader):
    def __init__(self, file: Any, of: Failing) -> None:
        super().__init__(file.detach() if hasattr(file, "detach") else file)
        self.of = of

    def read(self, *args: Any) -> bytes:
        self.of.fail()
        return super().read(*args)

    def readinto(self, buffer: Any) -> int:
        self.of.fail()
        return super().readinto(buffer)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """What is read, by the name of a file that is opened for it."""
    folder, model = tmp_path_factory.mktemp("files"), video_model()
    save_file(state_of(model), folder / "a.safetensors")
    np.savez(folder / "a.npz", **google_vit(image=32))
    write_native(folder / "a.pyth", bundle_of(model))
    torch.save(state_of(model), folder / "a.pth")
    save_pretrained(model, folder / "saved")
    of_folder = dict.fromkeys(("model.safetensors", "config.json"), folder / "saved")
    return of_folder | {path.name: path for path in folder.iterdir()}


NAMES = ["a.safetensors", "a.npz", "a.pyth", "a.pth", "model.safetensors", "config.json"]


@pytest.mark.parametrize("fails", [Failing, FailingReads])
@pytest.mark.parametrize("name", NAMES)
def test_storage_that_fails_for_a_moment_is_waited_for(name, fails, files, monkeypatch, caplog):
    expected = read_weights(files[name])
    storage = fails(monkeypatch, name, errno.ESTALE, 2)
    found = read_weights(files[name])
    assert storage.left == 0
    assert "trying again" in caplog.text
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("fails", [Failing, FailingReads])
@pytest.mark.parametrize("name", NAMES)
def test_storage_that_goes_on_failing_is_named(name, fails, files, monkeypatch):
    fails(monkeypatch, name, errno.EIO, 99)
    with pytest.raises(WeightsError, match=r"(can't read|not readable).*storage") as error:
        read_weights(files[name])
    assert name in str(error.value)


def test_what_waiting_does_not_mend_is_told_at_once(files, monkeypatch):
    storage = Failing(monkeypatch, "a.npz", errno.EACCES, 1)
    with pytest.raises(WeightsError, match=r"a\.npz: can't read it \(storage\)"):
        read_weights(files["a.npz"])
    assert not storage.left
