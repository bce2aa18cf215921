"""What PySlowFast's and pytorchvideo's files hold beside plain weights, and what is refused.

Their own networks, with noise in every weight, gave other scores than the models here with each
config that is refused below, though names and shapes are the same.
"""

from __future__ import annotations

import functools
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_cnns import narrow
from torch import Tensor, nn

from timesformer.models.create import create_model, from_pretrained
from timesformer.models.weights.bundle import read_bundle
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import WeightsError

SMALL: dict[str, Any] = {"width": 0.125, "num_classes": 6}
OF_ONE = {
    "DATA": {"MEAN": [0.45] * 3, "STD": [0.225] * 3, "NUM_FRAMES": 8, "TRAIN_CROP_SIZE": 64},
    "RESNET": {
        "SPATIAL_STRIDES": [[1], [2], [2], [2]],
        "SPATIAL_DILATIONS": [[1], [1], [1], [1]],
        "STRIDE_1X1": False,
    },
    "SLOWFAST": {"ALPHA": 8},  # as every config has it, whatever the network
    "MODEL": {"ARCH": "slow", "HEAD_ACT": "softmax"},
    "DETECTION": {"ENABLE": False},
    "MULTIGRID": {"SHORT_CYCLE": False},
}
OF_TWO = OF_ONE | {
    "RESNET": {
        "SPATIAL_STRIDES": [[1, 1], [2, 2], [2, 2], [2, 2]],
        "SPATIAL_DILATIONS": [[1, 1], [1, 1], [1, 1], [1, 1]],
    },
    "SLOWFAST": {"ALPHA": 4},
    "MODEL": {"ARCH": "slowfast"},
}


def write(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint as PySlowFast does; a YAML of one line a group reads as its own."""
    content: dict[str, Any] = {"epoch": 3, "model_state": dict(state), "optimizer_state": {}}
    if config is not None:
        content["cfg"] = "".join(f"{group}: {keys}\n" for group, keys in config.items())
    torch.save(content, path)
    return path


@functools.cache
def weights(name: str) -> dict[str, Tensor]:
    return dict(narrow(name).state_dict())


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    group, name = key.split(".")
    return config | {group: config[group] | {name: value}}


@pytest.mark.parametrize(
    ("name", "config", "key", "value", "message"),
    [
        ("slowfast_r50", OF_TWO, "SLOWFAST.ALPHA", 8, "SLOWFAST.ALPHA 8: slowfast_r50 here has 4"),
        ("i3d_r50", OF_ONE, "MODEL.ARCH", "slow_i3d", "slow_i3d: i3d_r50 here has i3d"),
        ("slow_r50", OF_ONE, "RESNET.STRIDE_1X1", True, "RESNET.STRIDE_1X1 True"),
        ("slow_r50", OF_ONE, "RESNET.SPATIAL_STRIDES", [[1], [2], [2], [1]], "SPATIAL_STRIDES"),
        ("slow_r50", OF_ONE, "RESNET.SPATIAL_DILATIONS", [[1], [1], [1], [2]], "DILATIONS"),
        (
            *("slowfast_r50", OF_TWO, "RESNET.SPATIAL_STRIDES"),
            *([[1, 1], [2, 2], [2, 2], [2, 1]], "SPATIAL_STRIDES"),
        ),
        ("slow_r50", OF_ONE, "DETECTION.ENABLE", True, "a detector of AVA's"),
    ],
)
def test_what_a_config_says_and_no_shape_is_refused(name, config, key, value, message, tmp_path):
    state = weights(name)
    arch = {"i3d_r50": "i3d"}.get(name, config["MODEL"]["ARCH"])
    config = changed(config, "MODEL.ARCH", arch)
    read_bundle(write(tmp_path / "x.pyth", state, config))
    path = write(tmp_path / "x.pyth", state, changed(config, key, value))
    with pytest.raises(WeightsError, match=re.escape(message)):
        from_pretrained(path)
    with pytest.raises(WeightsError, match=re.escape(message)):
        load_pretrained(nn.Linear(1, 1), torch.load(path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.HEAD_ACT", "sigmoid", "trained for several labels"),
        ("MULTIGRID.SHORT_CYCLE", True, "multigrid's short cycle"),
    ],
)
def test_larger_crops_that_score_otherwise_are_warned_of(key, value, message, tmp_path, caplog):
    state = weights("slow_r50")
    from_pretrained(write(tmp_path / "x.pyth", state, OF_ONE))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    from_pretrained(write(tmp_path / "x.pyth", state, changed(OF_ONE, key, value)))
    assert message in caplog.text


def test_clips_that_nothing_says_are_warned_of(tmp_path, caplog):
    """X3D-S pools windows of 160, not of 224, and has the weights of M."""
    path = write(tmp_path / "x.pyth", weights("x3d_m"))
    assert from_pretrained(path).architecture.num_frames == 16
    assert "taken for img_size 224 and num_frames 16" in caplog.text
    assert "X3D-XS (4 frames of 160) and S (13 of 160)" in caplog.text
    caplog.clear()
    model = from_pretrained(path, num_frames=13, img_size=160)
    assert not caplog.text
    assert model.head.window == (5, 5)
    assert model.architecture.num_frames == 13


def test_as_many_classes_as_ava_without_a_config_are_warned_of(tmp_path, caplog):
    from_pretrained(write(tmp_path / "x.pyth", narrow("slow_r50", num_classes=80).state_dict()))
    assert "80 classes, as AVA's detectors" in caplog.text


# ------------------------------------------------------------------ what names and shapes say


def with_entry(name: str, key: str, value: Tensor) -> dict[str, Tensor]:
    return weights(name) | {key: value}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            lambda: with_entry("i3d_r50", "s3.pathway0_nonlocal1.bn.bias", torch.ones(4)),
            "non-local",
        ),
        (lambda: with_entry("slow_r50", "detection_head.proj.bias", torch.ones(4)), "detection"),
        (
            lambda: with_entry("x3d_m", "s2.pathway0_res3.branch2.a.weight", torch.ones(4)),
            "4 blocks in s2, where an X3D-M has 3",
        ),
        (
            lambda: with_entry(
                "slowfast_r50", "s1_fuse.conv_f2s.weight", torch.ones(2, 1, 5, 1, 1)
            ),
            "a fusion kernel of 5 frames",
        ),
        (
            lambda: with_entry(
                "slow_r50", "s2.pathway0_res0.branch2.b.weight", torch.ones(8, 1, 3, 3, 3)
            ),
            "CSN",
        ),
        (
            lambda: with_entry(
                "slow_r50", "s2.pathway0_res0.branch2.b.conv_t.weight", torch.ones(8, 8, 3, 1, 1)
            ),
            r"R\(2\+1\)D",
        ),
    ],
)
def test_other_networks_are_named(state, message, tmp_path):
    path = write(tmp_path / "x.pyth", state())
    with pytest.raises(WeightsError, match=message):
        from_pretrained(path)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(nn.Linear(1, 1), path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("blocks.0.attn.pool_k.weight", "an MViT of PySlowFast.*torchvision/mvit_v2_s"),
        ("backbone.s1.pathway0_stem.conv.weight", "contrastive training"),
        ("rev_backbone.layers.0.F.norm.bias", "a reversible network"),
    ],
)
def test_other_families_are_named(key, message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        from_pretrained(write(tmp_path / "x.pyth", {key: torch.ones(4)}))


# ------------------------------------------------------------------ other ways to hold the same


@torch.inference_mode()
def test_norms_of_split_batches_are_joined(tmp_path):
    """As PySlowFast joins them for a test: the variance has that of the splits' means in it."""
    model = narrow("slow_r50")
    split = dict(model.state_dict())
    for name, norm in model.named_modules():
        if not isinstance(norm, nn.BatchNorm3d):
            continue
        means = torch.randn(2, norm.num_features)
        variances = torch.rand(2, norm.num_features) + 0.5
        norm.running_mean.copy_(means.mean(0))
        norm.running_var.copy_(variances.mean(0) + ((means[0] - means[1]) / 2) ** 2)
        for part in ("running_mean", "running_var", "num_batches_tracked"):
            split[f"{name}.bn.{part}"] = split.pop(f"{name}.{part}")  # stale
        split[f"{name}.split_bn.running_mean"] = means.flatten()
        split[f"{name}.split_bn.running_var"] = variances.flatten()
        split[f"{name}.split_bn.num_batches_tracked"] = torch.tensor(7)
        split[f"{name}.weight"] = split[f"{name}.weight"].view(-1, 1, 1, 1)
    read = from_pretrained(write(tmp_path / "x.pyth", split))
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(read(clip), model(clip))


@torch.inference_mode()
def test_half_precision_prefixes_and_no_counters(tmp_path):
    model = narrow("slow_r50").half().float()  # numbers that float16 has
    state = {
        f"module.model.{key}": value.half()
        for key, value in model.state_dict().items()
        if not key.endswith(".num_batches_tracked")
    }
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(from_pretrained(write(tmp_path / "x.pyth", state))(clip), model(clip))
    state = dict(model.state_dict())
    del state["s1.pathway0_stem.bn.num_batches_tracked"]  # one alone is damage
    with pytest.raises(WeightsError, match="num_batches_tracked: missing in the file"):
        from_pretrained(write(tmp_path / "x.pyth", state))


@pytest.mark.parametrize("shape", ["image", "video"])
@torch.inference_mode()
def test_image_networks_with_pyslowfasts_names_are_inflated(shape):
    model = narrow("i3d_r50")
    own = model.state_dict()
    flat = {k: v.mean(2, keepdim=True) if v.ndim == 5 else v for k, v in own.items()}
    if shape == "image":
        flat = {k: v.squeeze(2) if v.ndim == 5 else v for k, v in flat.items()}
    load_pretrained(model, {"model_state": flat})
    for key, value in model.state_dict().items():
        kernel = flat[key].reshape(value[:, :, :1].shape) if value.ndim == 5 else flat[key]
        expected = kernel.expand_as(value) / (value.shape[2] if value.ndim == 5 else 1)
        torch.testing.assert_close(value, expected.to(value.dtype))


# ------------------------------------------------------------------ Caffe2


PARTS = {"weight": "w", "bias": "b"}
PARTS_OF_NORM = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def as_caffe2(key: str) -> str:
    """What Caffe2 calls one of our weights; PySlowFast's own converter gives ours back for it."""
    module, _, part = key.rpartition(".")
    part = (PARTS_OF_NORM if module.endswith("bn") else PARTS)[part]
    if match := re.fullmatch(r"s1\.pathway(\d)_stem\.(\w+)", module):
        inner = "conv1" if match[2] == "conv" else "res_conv1_bn"
        return f"{'t_' * int(match[1])}{inner}_{part}"
    if match := re.fullmatch(r"s(\d)_fuse\.(\w+)", module):
        last = {"1": "pool1", "2": "res2_2", "3": "res3_3", "4": "res4_5"}[match[1]]
        last += "_branch2c_bn" if match[1] != "1" else ""
        return f"t_{last}_subsample_{'bn_' if match[2] == 'bn' else ''}{part}"
    if match := re.fullmatch(r"s(\d)\.pathway(\d)_res(\d+)\.(.+)", module):
        stage, fast, block, inner = match.groups()
        return f"{'t_' * int(fast)}res{stage}_{block}_{inner.replace('.', '')}_{part}"
    return f"pred_{part}"


def write_caffe2(path: Path, blobs: Mapping[str, Any], protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps({"blobs": dict(blobs)}, protocol=protocol))
    return path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("slowfast_r50", marks=pytest.mark.slow),
        pytest.param("slow_r50", marks=pytest.mark.slow),
        "i3d_r50",
    ],
)
@torch.inference_mode()
def test_caffe2(name, tmp_path):
    model = narrow(name, img_size=224)
    blobs: dict[str, Any] = {
        as_caffe2(key): value.numpy()
        for key, value in model.state_dict().items()
        if "num_batches" not in key
    }
    big_endian_columns = np.asfortranarray(blobs["conv1_w"]).astype(">f4")
    beside = {"conv1_w_momentum": blobs["conv1_w"], "lr": np.float32(0.1), "model_iter": 3}
    path = write_caffe2(tmp_path / "x.pkl", blobs | beside | {"conv1_w": big_endian_columns})
    read = from_pretrained(path)
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(read(clip), model(clip))
    assert read.architecture.model == name
    assert read.preprocessing["channel_order"] == "RGB"
    report = load_pretrained(create_model(name, **SMALL), path)
    assert set(report.ignored) == set(beside)
    assert len(report.loaded) == len(model.state_dict())


def test_caffe2s_non_local_networks_are_named(tmp_path):
    state = weights("i3d_r50")
    blobs = {as_caffe2(k): v.numpy() for k, v in state.items() if "num_batches" not in k}
    path = write_caffe2(tmp_path / "x.pkl", blobs | {"nonlocal_conv3_1_theta_w": np.ones(3)})
    with pytest.raises(WeightsError, match="non-local blocks"):
        from_pretrained(path)


class Harmful:
    """What its pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"blobs": {"conv1_w": Harmful()}}, "it holds __builtin__.getattr"),
        ({"blobs": {"conv1_w": np.array([object()])}}, "it holds|an array of"),
        ({"blobs": {"conv1_w": np.array(["text"])}}, "an array of 'U4'"),
        ({"weights": 3}, "it has no 'blobs'"),
    ],
)
def test_pickles_run_nothing(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.pkl").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match=message):
        from_pretrained("x.pkl")
    assert not Path("ran").exists()


@pytest.mark.parametrize("kept", [3, 40, 200, 400])
def test_a_pickle_that_is_cut_short(kept, tmp_path):
    path = write_caffe2(tmp_path / "x.pkl", {"conv1_w": np.ones(100, np.float32)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"x\.pkl: not a readable"):
        from_pretrained(path)


def test_torch_files_may_be_called_pkl(tmp_path):
    """As those of multigrid training in PySlowFast's zoo; torch wrote them in its first format."""
    content = {"model_state": weights("slow_r50")}
    torch.save(content, tmp_path / "x.pkl", _use_new_zipfile_serialization=False)
    assert from_pretrained(tmp_path / "x.pkl").architecture.model == "slow_r50"
