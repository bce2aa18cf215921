"""Files of PySlowFast and pytorchvideo, and image ResNets, in the 3D CNNs.

What their programs write was compared with their own models once, with noise in every weight: what
is kept of it here are digests of their names and shapes.
"""

from __future__ import annotations

import hashlib
import re

import pytest
import torch
import torchvision
from small_cnns import FRAMES, NAMES, cfg_of, narrow, scramble
from torch import Tensor

from timesformer.models.build import meta_model
from timesformer.models.create import create_model, from_pretrained
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import WeightsError

STATISTICS = {"mean": [0.45] * 3, "std": [0.225] * 3}
# SHA-256 of the sorted lines "name shape" of pytorchvideo's own models, for 400 classes.
PYTORCHVIDEO = {
    "slowfast_r50": (662, "555841f32f8ad777"),
    "slow_r50": (320, "ad055811e9bd8016"),
    "i3d_r50": (320, "23cfaf912ffea1ca"),
    "x3d_m": (563, "2617d02127ab9e9e"),
}
ARCH = {"slowfast_r50": "slowfast", "slow_r50": "slow", "i3d_r50": "i3d", "x3d_m": "x3d"}
NOT_THEIRS = "s2.pathway0_res0.branch1_bn."  # of X3D


def theirs(name: str, key: str) -> str:
    """What pytorchvideo calls one of our weights."""
    last = {"slowfast_r50": 6, "i3d_r50": 6}.get(name, 5)
    stage, _, rest = key.partition(".")
    if stage == "head":
        inner = rest.replace("projection.", "proj.").replace("conv_5_bn.", "pool.pre_norm.")
        inner = inner.replace("conv_5.", "pool.pre_conv.").replace("lin_5.", "pool.post_conv.")
        return f"blocks.{last}.{inner}"
    number = int(stage[1]) - 1
    if stage.endswith("_fuse"):
        inner = rest.replace("conv_f2s", "conv_fast_to_slow").replace("bn", "norm")
        return f"blocks.{number}.multipathway_fusion.{inner}"
    pathway, part, inner = re.fullmatch(r"pathway(\d)_(\w+?)\.(.+)", rest).groups()
    if name == "i3d_r50" and number > 1:
        number += 1  # behind the pooling
    prefix = f"blocks.{number}."
    if name == "slowfast_r50":
        prefix += f"multipathway_blocks.{pathway}."
    if part == "stem":
        inner = inner.replace("bn.", "norm.")
        if name == "x3d_m":
            inner = {
                "conv_xy.weight": "conv.conv_t.weight",
                "conv.weight": "conv.conv_xy.weight",
            }.get(inner, inner)
        return prefix + inner
    inner = re.sub(r"branch2\.([abc])_bn", r"branch2.norm_\1", inner)
    inner = re.sub(r"branch2\.([abc])\.", r"branch2.conv_\1.", inner)
    inner = inner.replace("branch1.", "branch1_conv.").replace("branch1_bn", "branch1_norm")
    if name == "x3d_m":
        inner = inner.replace("norm_b.", "norm_b.0.")
        inner = inner.replace("se.fc1", "norm_b.1.block.0").replace("se.fc2", "norm_b.1.block.2")
    return f"{prefix}res_blocks.{part.removeprefix('res')}.{inner}"


def as_pytorchvideo(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {k: v for k, v in state.items() if name != "x3d_m" or not k.startswith(NOT_THEIRS)}
    return {theirs(name, key): value for key, value in kept.items()}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_this_test_are_pytorchvideos(name):
    state = as_pytorchvideo(name, meta_model(cfg_of(name)).state_dict())
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(state), digest[:16]) == PYTORCHVIDEO[name]


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_pytorchvideo(name, tmp_path):
    model = narrow(name)
    if name == "x3d_m":  # theirs has no norm there
        norm = model.get_submodule(NOT_THEIRS[:-1])
        norm.weight.fill_(1), norm.bias.zero_(), norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
    state = model.state_dict()
    torch.save({"model_state": as_pytorchvideo(name, state)}, tmp_path / "x.pyth")
    read = from_pretrained(tmp_path / "x.pyth")
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(read(clip), model(clip))
    assert (read.architecture.model, read.architecture.width) == (name, 0.125)
    assert (read.architecture.num_frames, read.architecture.img_size) == (FRAMES[name], 224)
    assert read.architecture.num_classes == 6
    assert read.preprocessing == STATISTICS | {"channel_order": "RGB"}
    report = load_pretrained(narrow(name, num_classes=9), tmp_path / "x.pyth")
    assert {"head.projection.weight", "head.projection.bias"} == set(report.missing)
    assert len(report.loaded) == len(state) - 2


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_pyslowfast(name, tmp_path):
    model = narrow(name)
    config = f"""\
DATA:
  MEAN: [0.45, 0.45, 0.45]
  STD: [0.225, 0.225, 0.225]
  NUM_FRAMES: 8
  TRAIN_CROP_SIZE: 64
  REVERSE_INPUT_CHANNEL: false
MODEL: {{ARCH: {ARCH[name]}, MODEL_NAME: ResNet, NUM_CLASSES: 6}}
TRAIN: {{DATASET: kinetics}}
"""
    saved = {"epoch": 1, "model_state": model.state_dict(), "optimizer_state": {}, "cfg": config}
    torch.save(saved, tmp_path / "x.pyth")
    read = from_pretrained(tmp_path / "x.pyth")
    for side in (64, 128):
        clip = torch.randn(1, 3, 8, side, side)
        assert torch.equal(read(clip), model(clip))
    assert (read.architecture.model, read.architecture.num_frames) == (name, 8)
    assert read.architecture.img_size == 64
    assert read.preprocessing == STATISTICS | {"channel_order": "RGB"}


@pytest.mark.parametrize(
    ("dataset", "reverse", "order"),
    [
        ("kinetics", "false", "RGB"),
        ("kinetics", "true", "BGR"),
        ("ssv2", "true", "RGB"),  # as its recipe has it: OpenCV's BGR, turned round
        ("ssv2", "false", "BGR"),
        ("ptvssv2", "true", "RGB"),
    ],
)
def test_colours_are_what_pyslowfasts_loaders_give(dataset, reverse, order, tmp_path):
    config = (
        f"DATA: {{MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225], "
        f"REVERSE_INPUT_CHANNEL: {reverse}}}\nTRAIN: {{DATASET: {dataset}}}\n"
    )
    state = narrow("slow_r50").state_dict()
    torch.save({"model_state": state, "cfg": config}, tmp_path / "x.pyth")
    assert from_pretrained(tmp_path / "x.pyth").preprocessing["channel_order"] == order


def test_saved_folders_come_back(tmp_path):
    from timesformer.models.weights.save import save_pretrained

    model = narrow("i3d_r50")
    model.preprocessing = STATISTICS | {"channel_order": "RGB"}
    save_pretrained(model, tmp_path / "i3d")
    read = from_pretrained(tmp_path / "i3d")
    assert read.architecture == model.architecture
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in read.state_dict().items())


# ------------------------------------------------------------------ images


def image_resnet() -> torchvision.models.ResNet:
    return scramble(torchvision.models.resnet50(num_classes=6))


def features_of_image(image: torchvision.models.ResNet, picture: Tensor) -> Tensor:
    x = image.maxpool(image.relu(image.bn1(image.conv1(picture))))
    return image.layer4(image.layer3(image.layer2(image.layer1(x))))


@pytest.mark.parametrize(("name", "frames"), [("i3d_r50", 40), ("slow_r50", 20)])
@torch.inference_mode()
def test_a_still_video_gives_the_features_of_the_picture(name, frames):
    """In every frame that the padding in time doesn't reach."""
    image = image_resnet()
    model = create_model(name, num_classes=6, num_frames=frames).eval()
    report = load_pretrained(model, image.state_dict())
    assert len(report.loaded) == len(model.state_dict())
    picture = torch.randn(1, 3, 32, 32)
    expected = features_of_image(image, picture)
    (features,) = model.forward_features(picture[:, :, None].expand(-1, -1, frames, -1, -1))
    frame = features[:, :, features.shape[2] // 2]
    assert ((frame - expected).norm() / expected.norm()).item() < 1e-5
    edge = features[:, :, 0]
    assert ((edge - expected).norm() / expected.norm()).item() > 1e-2
    head = image.fc.state_dict()
    assert torch.equal(model.get_classifier().weight, head["weight"])


def test_head_of_the_images_classes_is_left_out():
    image = image_resnet()
    report = load_pretrained(create_model("i3d_r50", num_classes=5), image.state_dict())
    assert set(report.unexpected) == {"head.projection.weight", "head.projection.bias"}
    assert set(report.missing) == set(report.unexpected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slow_r50", {"width": 0.5}, "differ"),
        ("slowfast_r50", {}, "differ"),
        ("x3d_m", {}, "differ"),
    ],
)
def test_images_that_do_not_fit(name, options, message):
    model = create_model(name, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_pretrained(model, image_resnet().state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# ------------------------------------------------------------------ what isn't one of them


def test_a_deeper_network_is_refused(tmp_path):
    state = narrow("slow_r50").state_dict()
    state |= {f"s4.pathway0_res{i}.branch2.a.weight": torch.zeros(1) for i in range(6, 23)}
    torch.save({"model_state": state}, tmp_path / "r101.pyth")
    with pytest.raises(WeightsError, match="23 blocks in s4, where a ResNet-50 has 6"):
        from_pretrained(tmp_path / "r101.pyth")


def test_c2d_is_refused(tmp_path):
    state = narrow("slow_r50").state_dict()
    for key, value in state.items():
        if value.ndim == 5:
            state[key] = value[:, :, :1]
    torch.save({"model_state": state}, tmp_path / "c2d.pyth")
    with pytest.raises(WeightsError, match=r"kernels of \[1, 1\] frames"):
        from_pretrained(tmp_path / "c2d.pyth")


def test_one_of_them_in_a_timesformer(tmp_path):
    torch.save(narrow("slow_r50").state_dict(), tmp_path / "x.pyth")
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 3, "img_size": 32}
    with pytest.raises(WeightsError, match="they look like a 3D CNN with PySlowFast's names"):
        load_pretrained(TimeSformer(**sizes), tmp_path / "x.pyth")
    with pytest.raises(WeightsError, match="not weights of this model"):
        load_pretrained(create_model("i3d_r50", width=0.125), tmp_path / "x.pyth")
