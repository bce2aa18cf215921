"""What users of timm expect of a model, and the options of the video transformer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from timesformer.config.defaults import get_cfg
from timesformer.models.attention import ATTENTION_REGISTRY, TokenGrid, base
from timesformer.models.attention.divided import DividedSpaceTimeBlock
from timesformer.models.attention.layers import Mlp
from timesformer.models.build import make_model
from timesformer.models.lora import add_lora
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import ConfigError

SCHEMES = sorted(name for name, _ in ATTENTION_REGISTRY)
SIZES = {"img_size": 32, "num_classes": 5, "num_frames": 4, "embed_dim": 24, "depth": 3}


def make(attention_type: str = "divided_space_time", **options) -> TimeSformer:
    return TimeSformer(
        attention_type=attention_type, num_heads=3, init="scratch", **(SIZES | options)
    ).eval()


def clip(frames: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, frames, height, width)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_head_and_features(scheme: str) -> None:
    model, x = make(scheme), clip()
    features = model.forward_features(x)
    assert features.shape == (2, 24)
    assert model.forward_head(features).equal(model(x))
    assert model.forward_head(features, pre_logits=True) is features
    assert model.get_classifier() is model.model.head
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).equal(features)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_intermediate_layers(scheme: str) -> None:
    model, x = make(scheme), clip(4, 32, 48)
    (last,) = model.get_intermediate_layers(x)
    assert last.shape == (2, 4, 2, 3, 24)
    first, again = model.get_intermediate_layers(x, [0, -1])
    assert again.equal(last)
    assert not first.equal(last)
    assert len(model.get_intermediate_layers(x, 3)) == 3
    if ATTENTION_REGISTRY.get(scheme).cls_token:
        ((patches, cls),) = model.get_intermediate_layers(x, return_cls=True)
        assert patches.equal(last)
        if scheme == "space_only":  # the head averages before it normalises
            assert cls.shape == (2, 24)
        else:
            torch.testing.assert_close(cls, model.forward_features(x))
    else:
        torch.testing.assert_close(last.mean(dim=(1, 2, 3)), model.forward_features(x))
        with pytest.raises(ValueError, match="has no CLS"):
            model.get_intermediate_layers(x, return_cls=True)
    for wrong in (4, [3], [-4]):
        with pytest.raises(ValueError, match="has 3 blocks"):
            model.get_intermediate_layers(x, wrong)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_last_mlp_is_computed_for_cls_alone_unless_somebody_looks(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, found, lengths = make(scheme), clip(), [], []
    monkeypatch.setattr(base, "FEW", 1)
    forward = Mlp.forward
    monkeypatch.setattr(
        Mlp, "forward", lambda mlp, x: lengths.append(x.shape[1]) or forward(mlp, x)
    )
    for looked in (False, True):
        if looked:
            model.model.norm.register_forward_hook(lambda *_: None)
        model.zero_grad()
        logits = model(x)
        logits.square().sum().backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    for alone, whole in zip(*found, strict=True):
        torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-4)
    tokens = lengths[0]
    last = 1 if ATTENTION_REGISTRY.get(scheme).cls_token else tokens
    assert lengths == [tokens, tokens, last, tokens, tokens, tokens]


def test_attributes_can_be_gone_through_before_preprocessing_is_said() -> None:
    """As torch.jit.trace does."""
    model = make()
    assert all(hasattr(model, name) for name in dir(model))
    assert not {"normalize", "sampling", "testing"} & {*dir(model)}
    model.preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
    assert {"normalize", "testing"} <= {*dir(model)}
    assert all(hasattr(model, name) for name in dir(model))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_of_a_clip_are_the_same_whatever_is_beside_it(scheme: str) -> None:
    """To the bit, on one thread: products of few rows are computed otherwise than of many."""
    model = make(scheme, num_frames=8, img_size=48)
    x = torch.rand(6, 3, 8, 48, 48)
    with torch.no_grad():
        whole = model.forward_features(x)
        for n in (1, 2, 4):
            assert model.forward_features(x[:n]).equal(whole[:n])


def test_an_mlp_that_may_mix_tokens_gets_all_of_them() -> None:
    class Mixer(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flip(1))

    model, x = make(num_frames=8, img_size=48), clip(8, 48, 48)
    last = model.model.blocks[-1]
    last.mlp.__class__ = Mixer
    found = model(x)
    last.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(found, model(x))


@pytest.mark.parametrize("place", ["blocks.2", "blocks.2.norm1", "blocks.2.mlp", "norm"])
@pytest.mark.parametrize("way", ["hook", "before", "back", "forward"])
def test_whoever_looks_sees_all_tokens(place: str, way: str) -> None:
    model, x, seen = make(), clip(), []
    expected, module = model(x), model.model.get_submodule(place)
    if way == "hook":
        module.register_forward_hook(lambda _, __, y: seen.append(y))
    elif way == "before":
        module.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    elif way == "back":
        module.register_full_backward_hook(lambda _, __, grads: seen.append(grads[0]))
    else:  # as accelerate does, and people who want a look at attention
        forward = module.forward
        module.forward = lambda *args: seen.append(forward(*args)) or seen[0]
    logits = model(x)
    logits.sum().backward()
    torch.testing.assert_close(logits, expected)
    assert seen[0].shape[:2].numel() == 2 * (4 * (1 + 4) if place[-1] == "1" else 1 + 4 * 4)


class Own(torch.nn.Module):
    """A block in somebody's own module."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
        return self.block(x, grid)


class OwnScheme(DividedSpaceTimeBlock):
    """A block with a forward of its own."""

    def forward(self, x: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
        return super().forward(x, grid)


@torch.no_grad()
def test_blocks_of_others_take_tokens_and_grid_alone() -> None:
    model, x = make(depth=1), clip()
    expected = model(x)
    for block in model.model.blocks:
        block.__class__ = OwnScheme
    torch.testing.assert_close(model(x), expected)
    model = make()
    expected = model(x)
    for i, block in enumerate(model.model.blocks):
        model.model.blocks[i] = Own(block)
    torch.testing.assert_close(model(x), expected)


@torch.no_grad()
def test_projections_that_are_more_than_their_weights_stay_two() -> None:
    for change in (
        lambda model: add_lora(model, 4, 8.0, "*temporal_attn.proj"),
        lambda model: [weight_norm(block.temporal_attn.proj) for block in model.model.blocks],
    ):
        model, x = make(), clip()
        change(model)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        expected = model(x)
        for block in model.model.blocks:
            block.join_projections()
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_projections_that_follow_each_other_are_one(scheme: str) -> None:
    model, x = make(scheme), clip()
    with torch.no_grad():
        for parameter in model.parameters():  # no step is zero
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        expected = model(x)
        weights = copy.deepcopy(model.state_dict())
        sharing = copy.deepcopy(model, {id(p): p for p in model.parameters()})
        for block in sharing.model.blocks:
            block.join_projections()
        assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
        for block in model.model.blocks:
            block.join_projections()
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(sharing(x), expected, atol=1e-5, rtol=1e-4)
    left = [name for name, _ in model.named_parameters() if "_fc." in name]
    # Model 3 of ViViT has no second layer.
    assert bool(left) == (scheme == "factorised_self_attention")


def test_intermediate_tokens_lie_where_their_pixels_are() -> None:
    """Without attention a token depends on the pixels of its own patch and frame alone."""
    model, x = make("space_only", depth=1), clip(4, 32, 48)
    for block in model.model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    (before,) = model.get_intermediate_layers(x)
    x[1, :, 2, 16:, 32:] += 1
    (after,) = model.get_intermediate_layers(x)
    changed = (before != after).any(dim=-1)
    assert changed.nonzero().tolist() == [[1, 2, 1, 2]]


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    model, x = make(drop_path_rate=0.0).train(), clip()
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one.equal(other)


def test_names_for_optimizers() -> None:
    model = make()
    expected = {"model.cls_token", "model.pos_embed", "model.time_embed"}
    assert model.no_weight_decay() == expected
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()
    assert make(pos_embed_type="none").no_weight_decay() == {"model.cls_token"}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("space_time", {"pos_embed", "time_embed"}), ("space", {"pos_embed"}), ("none", set())],
)
def test_positions(kind: str, names: set[str]) -> None:
    model, x = make(pos_embed_type=kind), clip()
    assert {n.removeprefix("model.") for n, _ in model.named_parameters()} & {
        "pos_embed",
        "time_embed",
    } == names
    for name, parameter in model.named_parameters():  # so that time and place can be told at all
        if name.endswith("_fc.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    backwards = torch.allclose(model(x), model(x.flip(2)), atol=1e-5)
    assert backwards == (kind != "space_time")
    with torch.no_grad():
        moved = x.unflatten(3, (2, 16)).flip(3).flatten(3, 4)  # rows of patches change places
    assert torch.allclose(model(x), model(moved), atol=1e-5) == (kind == "none")
    assert model(clip(2, 48, 32)).shape == (2, 5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tubelets(scheme: str) -> None:
    model = make(scheme, tubelet_size=2, num_frames=8)
    assert model.model.patch_embed.proj.weight.shape == (24, 3, 2, 16, 16)
    assert model(clip(8)).shape == (2, 5)
    assert model.get_intermediate_layers(clip(8))[0].shape == (2, 4, 2, 2, 24)
    with pytest.raises(ValueError, match="7 frames don't divide into tubelets of 2"):
        model(clip(7))
    with pytest.raises(ValueError, match="9 frames don't divide"):
        make(scheme, tubelet_size=2, num_frames=9)


def test_a_tubelet_of_equal_frames_is_a_patch() -> None:
    """Weights shared out over t frames give what the patch of one of these frames gives."""
    single, double = make(num_frames=4), make(num_frames=8, tubelet_size=2)
    state = single.state_dict()
    kernel = state.pop("model.patch_embed.proj.weight")
    double.load_state_dict(
        state | {"model.patch_embed.proj.weight": torch.stack([kernel, kernel], 2) / 2}
    )
    x = clip()
    torch.testing.assert_close(double(x.repeat_interleave(2, 2)), single(x))


def test_cls_in_time_is_for_schemes_that_know_it() -> None:
    assert not make(cls_in_time=True)(clip()).isnan().any()
    with pytest.raises(ValueError, match="axial attention has no option cls_in_time"):
        make("axial", cls_in_time=True)


def test_time_starts_as_sines_of_an_amplitude() -> None:
    def start(**options) -> torch.Tensor:
        return TimeSformer(**(SIZES | {"num_heads": 3} | options)).model.time_embed

    assert not start().any()
    assert start(init="scratch").abs().max() == 1.0
    torch.testing.assert_close(start(time_embed_amplitude=6.0), 6 * start(init="scratch"))
    assert not start(init="scratch", time_embed_amplitude=0.0).any()


@pytest.mark.parametrize("amplitude", [0.0, 6.0])
def test_image_weights_leave_the_amplitude_as_it_is(amplitude: float) -> None:
    model = make(time_embed_amplitude=amplitude)
    before = model.model.time_embed.clone()
    image = make("space_only").model.state_dict()
    report = load_pretrained(model, image)
    assert model.model.time_embed.equal(before)
    assert ("time_embed" in report.missing) == bool(amplitude)
    assert ("time_embed" in report.zeroed) == (not amplitude)


def test_unknown_positions() -> None:
    with pytest.raises(ValueError, match="pos_embed_type must be one of space_time, space, none"):
        make(pos_embed_type="sine")


def test_options_come_from_the_config() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            "DATA.NUM_FRAMES",
            "4",
            "DATA.TRAIN_CROP_SIZE",
            "32",
            "TIMESFORMER.EMBED_DIM",
            "24",
            "TIMESFORMER.DEPTH",
            "1",
            "TIMESFORMER.NUM_HEADS",
            "3",
            "TIMESFORMER.POS_EMBED",
            "space",
            "TIMESFORMER.TUBELET_SIZE",
            "2",
        ]
    )
    model = make_model(cfg)
    assert model.model.time_embed is None
    assert model.model.patch_embed.tubelet_size == 2
    cfg.TIMESFORMER.CLS_IN_TIME = True
    assert make_model(cfg).model.blocks[0].cls_in_time
    cfg.TIMESFORMER.ATTENTION_TYPE = "axial"
    with pytest.raises(ConfigError, match=r"axial attention has no option cls_in_time"):
        make_model(cfg)
