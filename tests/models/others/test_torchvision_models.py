"""torchvision's models in our registry: the same networks, for any clip and any classes."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import video

from timesformer.config.defaults import get_cfg
from timesformer.models.build import make_model
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import ConfigError

NAMES = ["mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b", "r2plus1d_18", "s3d"]
SMALL = ["mvit_v1_b", "mvit_v2_s", "swin3d_t", "r2plus1d_18", "s3d"]  # one or two of each class
HEADS = {
    "mvit_v1_b": "head.1",
    "mvit_v2_s": "head.1",
    "swin3d_t": "head",
    "r2plus1d_18": "fc",
    "s3d": "classifier.1",
}


def make(name: str, frames: int = 8, side: int = 64, classes: int = 6) -> nn.Module:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = name, classes
    cfg.DATA.NUM_FRAMES = frames
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = side
    return make_model(cfg)


@pytest.mark.parametrize("name", NAMES)
def test_weights_have_torchvisions_names_and_shapes(name):
    with torch.device("meta"):
        ours, theirs = make(name, 16, 224, 400), getattr(video, name)()
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert sum(p.numel() for p in ours.parameters()) == published


# The size of their published weights, with fewer frames for S3D; small clips where they do too.
@pytest.mark.parametrize(
    ("name", "frames", "side"),
    [
        pytest.param("mvit_v1_b", 16, 224, marks=pytest.mark.slow),
        pytest.param("mvit_v2_s", 16, 224, marks=pytest.mark.slow),
        pytest.param("swin3d_t", 16, 224, marks=pytest.mark.slow),
        ("swin3d_t", 8, 64),
        ("swin3d_s", 8, 64),
        ("swin3d_b", 8, 64),
        pytest.param("r2plus1d_18", 16, 112, marks=pytest.mark.slow),
        ("r2plus1d_18", 8, 56),
        ("s3d", 16, 224),
    ],
)
@torch.inference_mode()
def test_equals_torchvisions_at_the_standard_size(name, frames, side):
    theirs = getattr(video, name)().eval()
    if name == "r2plus1d_18":  # fresh, its logits are around 1e-2: widen them
        nn.init.normal_(theirs.fc.weight, std=0.5)
    with torch.device("meta"):
        ours = make(name, frames, side, 400).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    clip = torch.randn(1, 3, frames, side, side)
    expected = theirs(clip)
    assert expected.std() > 0.01
    torch.testing.assert_close(ours(clip), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_trains_on_small_clips(name):
    model = make(name).train()
    logits = model(torch.randn(2, 3, 8, 64, 64))
    assert logits.shape == (2, 6)
    nn.functional.cross_entropy(logits, torch.tensor([0, 5])).backward()
    for key, parameter in model.named_parameters():
        # None would stop distributed training, which waits for a gradient of every parameter.
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_evaluation_is_deterministic_and_takes_other_sizes(name):
    model = make(name).eval()
    clip = torch.randn(2, 3, 8, 64, 64)
    assert torch.equal(model(clip), model(clip))
    for frames, height, width in ((8, 96, 96), (6, 50, 70)):
        logits = model(torch.randn(1, 3, frames, height, width))
        assert logits.shape == (1, 6)
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_classifier(name):
    model = make(name)
    assert model.classifier_name == HEADS[name]
    assert model.get_classifier() is model.get_submodule(HEADS[name])
    assert model.state_dict()[f"{HEADS[name]}.weight"].shape[0] == 6
    before = {key for key in model.state_dict() if not key.startswith(HEADS[name])}
    clip = torch.randn(1, 3, 8, 32, 32)
    model.reset_classifier(0)
    assert set(model.state_dict()) == before
    width = model.eval()(clip).shape[1]
    model.reset_classifier(11)
    assert model.get_classifier().weight.shape[:2] == (11, width)
    assert model(clip).shape == (1, 11)


@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_mvit_takes_positions_of_another_size(name):
    with torch.device("meta"):
        published = make(name, 16, 224)
    state = {key: torch.randn(value.shape) for key, value in published.state_dict().items()}
    model = make(name, 8, 64)
    fitted = model.fit_positions(state)
    kinds = {key.rpartition(".")[2] for key in fitted}
    assert kinds == (
        {"spatial_pos", "temporal_pos"}
        if name == "mvit_v1_b"
        else {"rel_pos_h", "rel_pos_w", "rel_pos_t"}
    )
    model.load_state_dict(state | fitted)
    assert model.fit_positions(model.state_dict()) == {}


@pytest.mark.parametrize("name", SMALL)
def test_takes_torchvisions_weights(name):
    theirs, model = getattr(video, name)().state_dict(), make(name)
    report = load_pretrained(model, theirs)
    head = {f"{HEADS[name]}.weight", f"{HEADS[name]}.bias"}
    assert set(report.missing) == set(report.unexpected) == head
    assert {*report.loaded, *report.resized} == set(theirs) - head
    assert bool(report.resized) == name.startswith("mvit")
    for key in report.loaded:
        assert torch.equal(model.state_dict()[key], theirs[key]), key


def test_mvit_positions_keep_their_axes():
    model = make("mvit_v1_b")  # 4 × 16 × 16 tokens
    stored = model.pos_encoding
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    with torch.no_grad():
        stored.spatial_pos.zero_()
        stored.spatial_pos[:, 0] = rows.flatten()
        stored.spatial_pos[:, 1] = columns.flatten()
        stored.temporal_pos.zero_()
        stored.temporal_pos[:, 2] = torch.arange(4.0)
    built = model.positions(4, 16, 16)
    x = torch.zeros(1, 4 * 16 * 16, 96)
    cls = stored.class_token.detach()
    expected = stored(x)[0].detach().clone()  # torchvision's own sum, for the size it is built for
    expected[0] -= cls
    torch.testing.assert_close(built, expected)
    other = model.positions(6, 10, 20)[1:].unflatten(0, (6, 10, 20))
    for axis, channel in enumerate((2, 0, 1)):
        steps = other[..., channel].diff(dim=axis)
        assert (steps >= 0).all()
        assert steps.sum() > 0
        for constant in {0, 1, 2} - {axis}:
            assert other[..., channel].diff(dim=constant).abs().max() < 1e-4


def test_s3d_pooling_shrinks_only_where_it_must():
    pool = make("s3d").avgpool
    large, small = torch.randn(1, 4, 3, 8, 9), torch.randn(1, 4, 1, 2, 9)
    assert torch.equal(pool(large), nn.AvgPool3d((2, 7, 7), stride=1)(large))
    assert torch.equal(pool(small), nn.AvgPool3d((1, 2, 7), stride=1)(small))


def test_s3d_statistics_follow_short_trainings():
    model = make("s3d").train()
    for _ in range(40):
        model.features[0](torch.randn(2, 3, 8, 32, 32) + 3)
    norm = model.features[0][0][1]
    assert norm.running_mean.abs().max() > 0.1
    assert norm.eps == video.s3d().features[0][0][1].eps


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("s3d", "DATA.NUM_FRAMES", 4),
        ("s3d", "DATA.TEST_CROP_SIZE", 16),
        ("mvit_v1_b", "DATA.TRAIN_CROP_SIZE", 16),
        ("mvit_v2_s", "DATA.TEST_CROP_SIZE", 16),
        ("swin3d_t", "TIMESFORMER.ACT_CHECKPOINT", True),
    ],
)
def test_what_cannot_work_is_told_by_its_key(name, key, value):
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = name
    group, leaf = key.split(".")
    cfg[group][leaf] = value
    with pytest.raises(ConfigError, match=rf"{key}.*{name}"):
        make_model(cfg)


@torch.inference_mode()
def test_the_least_sizes_work():
    for name, frames, side in (("s3d", 5, 17), ("mvit_v1_b", 1, 32), ("mvit_v2_s", 1, 32)):
        logits = make(name, frames, side).eval()(torch.randn(1, 3, frames, side, side))
        assert logits.isfinite().all(), name
