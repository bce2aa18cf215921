"""SlowFast, Slow, I3D and X3D: sizes and costs of the public model zoos, clips of other sizes."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from small_cnns import FRAMES, NAMES, cfg_of, narrow
from torch import Tensor, nn

from timesformer.config.defaults import get_cfg
from timesformer.models.build import make_model, meta_model
from timesformer.models.create import create_model
from timesformer.models.others.residual import ConvolutionalHead
from timesformer.models.others.slowfast import SLOW, ResNet3d, slow_frames
from timesformer.models.profiling import count_macs
from timesformer.utils.errors import ConfigError

# ------------------------------------------------------------------ the public zoos' numbers

# pytorchvideo's zoo: 10⁶ parameters, 10⁹ "FLOPs" of a view of 256², which are multiply-adds. For
# its I3D and X3D it counts BatchNorm as well, 5 for each of its values (and has none in the
# shortcut of X3D's first block).
ZOO = {
    "slowfast_r50": (34_566_488, "34.57", "65.71", 0),
    "slow_r50": (32_454_096, "32.45", "54.52", 0),
    "i3d_r50": (28_043_472, "28.04", "37.53", 5),
    "x3d_m": (3_794_322, "3.79", "6.72", 5),
}

NOT_THERE = ("x3d_m", "s2.pathway0_res0.branch1_bn")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_multiply_adds_are_those_of_the_zoos(name):
    model = meta_model(cfg_of(name))
    parameters = sum(p.numel() for p in model.parameters())
    exact, millions, giga, counted = ZOO[name]
    assert parameters == exact
    assert f"{parameters / 1e6:.2f}" == millions
    clip = (3, FRAMES[name], 256, 256)
    macs = count_macs(model, clip)
    values: list[int] = []
    for key, module in model.eval().named_modules():
        if isinstance(module, nn.BatchNorm3d) and (name, key) != NOT_THERE:
            module.register_forward_hook(lambda *said: values.append(said[2].numel()))
    model(torch.empty(1, *clip, device="meta"))
    assert f"{(macs + counted * sum(values)) / 1e9:.2f}" == giga


def test_x3d_costs_what_pyslowfast_says():
    """Its zoo: 4.73 G for 16 frames of 224²."""
    macs = count_macs(meta_model(cfg_of("x3d_m")), (3, 16, 224, 224))
    assert f"{macs / 1e9:.2f}" == "4.73"


# SHA-256 of the sorted lines "name shape" of PySlowFast's own models, for 400 classes.
NAMES_AND_SHAPES = {
    "slowfast_r50": (662, "c830092d92a9ad5e"),
    "slow_r50": (320, "8bab33f6f9b5dc77"),
    "i3d_r50": (320, "7747a8dcc63e6580"),
    "x3d_m": (568, "d910fbdabc5275a7"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_pyslowfasts(name):
    state = meta_model(cfg_of(name)).state_dict()
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(state), digest[:16]) == NAMES_AND_SHAPES[name]


# ------------------------------------------------------------------ what they compute


@pytest.mark.parametrize(
    ("frames", "taken"),
    [(32, [0, 4, 8, 13, 17, 22, 26, 31]), (8, [0, 7]), (4, [0]), (16, [0, 5, 10, 15])],
)
def test_slow_pathway_takes_the_first_the_last_and_those_between(frames, taken):
    """As PySlowFast packs pathways: linspace(0, T - 1, T / alpha), rounded down."""
    clip = torch.arange(frames, dtype=torch.float32).expand(1, 3, 1, 1, frames).transpose(2, 4)
    slow, fast = create_model("slowfast_r50", width=0.125).pathways(clip)
    assert slow[0, 0, :, 0, 0].tolist() == taken
    assert torch.equal(fast, clip)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("frames", "height", "width"), [(8, 64, 64), (16, 96, 70), (4, 40, 33)])
@torch.inference_mode()
def test_clips_of_any_size(name, frames, height, width):
    model = narrow(name)
    clips = torch.randn(2, 3, frames, height, width)
    logits = model(clips)
    assert logits.shape == (2, 6)
    assert torch.equal(logits, model(clips))
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def positions_by_hand(model: nn.Module, maps: list[Tensor]) -> Tensor:
    """(B, positions, C): the mean over every window of the trained size, in a loop."""
    height, width = model.head.window
    (rows, columns), found = maps[0].shape[3:], []
    for i in range(rows - height + 1):
        for j in range(columns - width + 1):
            windows = [x[..., i : i + height, j : j + width] for x in maps]
            found.append(torch.cat([x.mean(dim=(2, 3, 4)) for x in windows], dim=1))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("name", ["slowfast_r50", "i3d_r50"])
@torch.inference_mode()
def test_scores_of_a_larger_crop_are_the_mean_softmax_of_its_windows(name):
    model = narrow(name)
    maps = model.forward_features(torch.randn(2, 3, 8, 128, 96))
    pooled = positions_by_hand(model, maps)
    assert pooled.shape[1] == 3 * 2  # windows of 2×2 in 4×3
    scores = model.head.projection(pooled).softmax(-1).mean(dim=1)
    torch.testing.assert_close(model.forward_head(maps).softmax(-1), scores)
    torch.testing.assert_close(model.forward_head(maps, pre_logits=True), pooled.mean(dim=1))


@torch.inference_mode()
def test_logits_of_the_trained_size_are_plain():
    model = narrow("slow_r50")
    (maps,) = model.forward_features(torch.randn(2, 3, 8, 64, 64))
    logits = F.linear(maps.mean(dim=(2, 3, 4)), *model.head.projection.parameters())
    torch.testing.assert_close(model.forward_head([maps]), logits, rtol=1e-5, atol=1e-2)


def test_dropout_is_of_half_the_features_and_for_training_alone():
    head = ConvolutionalHead(32)
    head.projection = nn.Linear(1000, 1000, bias=False)
    nn.init.eye_(head.projection.weight)
    maps = [torch.ones(1, 1000, 1, 1, 1)]
    assert 400 < (head.train()(maps) == 0).sum() < 600
    assert head.eval()(maps).eq(1).all()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_order_of_frames_matters(name):
    model, clip = narrow(name), torch.randn(1, 3, 8, 64, 64)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = narrow(name).train()
    loss = F.cross_entropy(model(torch.randn(4, 3, 8, 32, 32)), torch.tensor([0, 1, 2, 5]))
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_fresh_blocks_are_their_shortcuts(name):
    state = create_model(name, width=0.125).state_dict()
    last = [key for key in state if key.endswith("c_bn.weight")]
    assert len(last) == {"slowfast_r50": 32, "x3d_m": 26}.get(name, 16)
    assert not any(state[key].any() for key in last)
    weight = state["head.projection.weight"]
    assert weight.std().item() == pytest.approx(0.01, rel=0.05)
    conv = state["s5.pathway0_res1.branch2.c.weight"]
    assert conv.std().item() == pytest.approx((2 / conv.shape[0]) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_without_a_head_features_come_out(name):
    model = narrow(name)
    clips = torch.randn(2, 3, 8, 96, 96)
    features = model.forward_head(model.forward_features(clips), pre_logits=True)
    assert features.shape == (2, model.num_features)
    model.reset_classifier(0)
    assert torch.equal(model(clips), features)
    assert not any(key.startswith("head.projection") for key in model.state_dict())
    model.reset_classifier(9)
    assert model(clips).shape == (2, 9)


# ------------------------------------------------------------------ what can't be


@pytest.mark.parametrize("name", NAMES)
def test_width_scales_every_layer(name):
    with torch.device("meta"):
        whole, half = (create_model(name, width=w).state_dict() for w in (1.0, 0.5))
    for key, value in half.items():
        if ".se." in key or not value.ndim:
            continue
        outputs = {whole[key].shape[0], 2 * value.shape[0]}
        assert len(outputs) == 1 or key.startswith("head.projection"), key


def test_a_width_that_would_cut_channels():
    with pytest.raises(ConfigError, match=r"width 0\.2 leaves parts of channels.*0\.125"):
        create_model("slowfast_r50", width=0.2)
    with pytest.raises(ConfigError, match=r"width must be above 0"):
        create_model("slow_r50", width=0.0)


def test_frames_of_the_slow_pathway_are_those_of_linspace():
    for alpha in (1, 2, 4, 8):
        for frames in range(alpha, 513, alpha):
            taken = torch.linspace(0, frames - 1, frames // alpha).long()
            assert slow_frames(frames, alpha) == taken.tolist(), (frames, alpha)


def test_frames_that_the_pathways_cannot_share():
    with pytest.raises(ConfigError, match="30 frames aren't a multiple of 4"):
        make_model(cfg_of("slowfast_r50", "DATA.NUM_FRAMES", 30))
    with pytest.raises(ValueError, match="6 frames aren't a multiple of 4"):
        narrow("slowfast_r50")(torch.randn(1, 3, 6, 32, 32))
    with pytest.raises(ConfigError, match=r"NUM_FRAMES 1 is too few.*at least 2"):
        make_model(cfg_of("i3d_r50", "DATA.NUM_FRAMES", 1))


@pytest.mark.parametrize("name", NAMES)
def test_several_labels_have_no_softmax_to_average(name):
    labels = ("MODEL.LOSS_FUNC", "bce", "DATA.MULTI_LABEL", True)
    with pytest.raises(ConfigError, match=r"TEST_CROP_SIZE 256.*TRAIN_CROP_SIZE 224"):
        make_model(cfg_of(name, "DATA.TEST_CROP_SIZE", 256, *labels))
    meta_model(cfg_of(name, *labels))


def test_width_is_for_these_models_alone():
    for name in ("vit_base_patch16_224", "mvit_v2_s"):
        cfg = get_cfg()
        cfg.MODEL.MODEL_NAME, cfg.CNN.WIDTH = name, 0.5
        with pytest.raises(ConfigError, match=rf"CNN.WIDTH: {name} doesn't read it"):
            meta_model(cfg)
    with pytest.raises(ConfigError, match="EMBED_DIM"):
        meta_model(cfg_of("slow_r50", "TIMESFORMER.EMBED_DIM", 96))


def test_plain_arguments_make_one_too():
    model = ResNet3d((SLOW,), num_classes=3, num_frames=4, img_size=(32, 64), width=0.125)
    assert model.head.window == (1, 2)
    assert model(torch.randn(2, 3, 4, 32, 64)).shape == (2, 3)
