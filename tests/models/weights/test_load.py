"""Loading other people's weights: numbers, every file layout, and a full account."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
import timm
import torch
from golden_model import SCHEMES, tiny_model
from golden_recipe import clip_for, fill_, tensor_for
from safetensors.torch import save_file

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import ConfigError, WeightsError


def image_state(seed: int = 11, num_classes: int = 1000) -> dict[str, torch.Tensor]:
    model = tiny_model("space_only", num_classes=num_classes)
    return {k: tensor_for(k, tuple(v.shape), seed) for k, v in model.state_dict().items()}


def video_state(seed: int = 12) -> dict[str, torch.Tensor]:
    return dict(fill_(tiny_model("divided_space_time"), seed).state_dict())


def accounted(report) -> list[str]:
    return sorted(report.loaded + report.resized + report.copied + report.zeroed + report.missing)


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "pretrained_tiny.npz")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_image_weights_give_golden_features(scheme, numbers):
    model = tiny_model(scheme).eval()
    report = load_pretrained(model, {"model": image_state()})
    with torch.no_grad():
        features = model.forward_features(clip_for("pre", (2, 3, 4, 64, 64), 11)).numpy()
    np.testing.assert_allclose(features, numbers[f"image_vit/{scheme}/features"], atol=1e-5)
    assert accounted(report) == sorted(model.state_dict())
    assert report.missing == ("head.weight", "head.bias")
    assert report.unexpected == ("head.weight", "head.bias")
    divided = scheme == "divided_space_time"
    assert len(report.copied) == (18 if divided else 0)
    assert len(report.zeroed) == {"space_only": 0, "joint_space_time": 1}.get(scheme, 7)


def test_video_checkpoint_with_more_frames(numbers, tmp_path):
    path = tmp_path / "video.pyth"
    torch.save(
        {"epoch": 3, "model_state": {f"model.{k}": v for k, v in video_state().items()}}, path
    )
    longer = tiny_model("divided_space_time", num_frames=8).eval()
    report = load_pretrained(longer, path)
    with torch.no_grad():
        logits = longer(clip_for("vid8", (1, 3, 8, 64, 64), 12)).numpy()
    np.testing.assert_allclose(logits, numbers["video_ckpt_T4_to_T8/logits"], atol=1e-5)
    assert report.resized == ("time_embed",)
    assert not report.missing

    other_head = tiny_model("divided_space_time", num_classes=5).eval()
    load_pretrained(other_head, path)
    with torch.no_grad():
        features = other_head.forward_features(clip_for("vid5", (1, 3, 4, 64, 64), 12)).numpy()
    np.testing.assert_allclose(features, numbers["video_ckpt_5classes/features"], atol=1e-5)


@pytest.mark.parametrize("container", ["model_state", "state_dict", "model", "module", None])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model.", "_orig_mod.model."])
def test_every_container_and_prefix(container, prefix, tmp_path):
    state = {prefix + k: v for k, v in video_state().items()}
    path = tmp_path / "weights.pth"
    torch.save({container: state, "epoch": 1} if container else state, path)
    model = TimeSformer(64, 16, 10, 4, embed_dim=96, depth=3, num_heads=3)
    report = load_pretrained(model, path)
    assert len(report.loaded) == len(video_state())
    assert torch.equal(model.model.head.weight, video_state()["head.weight"])


def test_safetensors_and_flat_patch_weight(tmp_path):
    state = image_state(num_classes=10)
    flat = state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}
    flat["mask_token"] = torch.zeros(2, 2)
    save_file(flat, tmp_path / "vit.safetensors")
    model = tiny_model("joint_space_time")
    report = load_pretrained(model, tmp_path / "vit.safetensors")
    assert torch.equal(model.patch_embed.proj.weight, state["patch_embed.proj.weight"])
    assert torch.equal(model.head.weight, state["head.weight"])
    assert report.ignored == ("mask_token",)
    assert report.resized == ("patch_embed.proj.weight",)


def test_pos_embed_is_resized_in_two_dimensions_or_as_published():
    state = image_state()
    ramp = torch.arange(4.0).repeat_interleave(4)  # row number of each patch of the 4×4 grid
    state["pos_embed"] = torch.cat([torch.zeros(1), ramp])[None, :, None].repeat(1, 1, 96)
    larger = tiny_model("space_only", img_size=(64, 128))
    assert load_pretrained(larger, state).resized == ("pos_embed",)
    rows = larger.pos_embed[0, 1:, 0].reshape(4, 8)
    torch.testing.assert_close(rows, torch.arange(4.0)[:, None].expand(4, 8))

    square = tiny_model("space_only", img_size=96)  # a 6×6 grid
    load_pretrained(square, state, pos_embed_resize="legacy")
    legacy = square.pos_embed[0, 1:, 0]
    expected = ramp[torch.arange(36) * 16 // 36]
    assert torch.equal(legacy, expected)


@pytest.mark.parity
def test_timm_model_on_a_still_video():
    image_model = timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()
    fill_(image_model, seed=4)
    ours = TimeSformer(224, 16, 7, 8, embed_dim=192, depth=12, num_heads=3).eval()
    report = load_pretrained(ours, image_model.state_dict())
    image = clip_for("timm", (1, 3, 1, 224, 224))
    with torch.no_grad():
        theirs = image_model.forward_features(image[:, :, 0])[:, 0]
        features = ours.model.forward_features(image.expand(-1, -1, 3, -1, -1))
    torch.testing.assert_close(features, theirs, atol=1e-5, rtol=0)
    assert accounted(report) == sorted(ours.model.state_dict())


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("vit_base_patch16_224.orig_in21k_ft_in1k", "vit_base_patch16_224.orig_in21k_ft_in1k"),
        ("vit_base_patch16_224", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),  # timm's default
    ],
)
def test_timm_that_cannot_be_fetched_says_which_file_to_bring(name, repository, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    complaint = (
        rf"no route.*model\.safetensors from https://\S+/timm/{repository},.*PRETRAINED_MODEL"
    )
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(tiny_model("space_only"), f"timm/{name}")


def test_timm_weights_that_do_not_exist_get_the_nearest_name():
    with pytest.raises(WeightsError, match=r"did you mean timm/vit_base_patch16_224\.orig_in21k"):
        load_pretrained(tiny_model("space_only"), "timm/vit_base_patch16_224.orig_in22k")


def test_timm_fetch_loads_and_leaves_the_random_numbers_alone(monkeypatch):
    calls = []

    def fetched(name, pretrained):
        calls.append((name, pretrained))
        torch.rand(3)
        return tiny_model("space_only", num_classes=0)

    monkeypatch.setattr(timm, "create_model", fetched)
    model, before = tiny_model("divided_space_time"), torch.get_rng_state()
    report = load_pretrained(model, "timm/vit_base_patch16_224.orig_in21k")
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == [("vit_base_patch16_224.orig_in21k", True)]
    assert report.source == "timm/vit_base_patch16_224.orig_in21k"
    assert report.missing == ("head.weight", "head.bias")
    assert not report.unexpected


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: torch.compile(m, backend="eager")])
def test_nested_containers_mixed_prefixes_and_wrapped_models(wrap):
    state = video_state()
    mixed = {
        ("module._orig_mod.model." if i % 2 else "") + k: v
        for i, (k, v) in enumerate(state.items())
    }
    model = TimeSformer(64, 16, 10, 4, embed_dim=96, depth=3, num_heads=3)
    content = {"state_dict": {"model": mixed | {"step": 3}}, "epoch": 1}
    report = load_pretrained(wrap(model), content)
    assert set(report.loaded) == set(state)
    assert report.ignored == ("step",)
    assert all(torch.equal(v, state[k]) for k, v in model.model.state_dict().items())
    with pytest.raises(WeightsError, match=r"holds norm\.bias twice, once as model\.norm\.bias"):
        load_pretrained(model, state | {"model.norm.bias": state["norm.bias"]})


def test_joint_checkpoint_starts_a_divided_model():
    """It lacks the new submodules as an image model does; its time_embed is kept."""
    joint = fill_(tiny_model("joint_space_time"), 3)
    model = fill_(tiny_model("divided_space_time"), 5)  # zeros must be made, not expected
    report = load_pretrained(model, joint.state_dict())
    assert len(report.copied) == 18
    assert torch.equal(model.time_embed, joint.time_embed)
    assert torch.equal(model.blocks[2].temporal_attn.qkv.bias, joint.blocks[2].attn.qkv.bias)
    assert not any(block.temporal_fc.weight.any() for block in model.blocks)
    assert accounted(report) == sorted(model.state_dict())


def test_foreign_checkpoint_lists_every_key(tmp_path):
    from torchvision.models import resnet18

    resnet, model = resnet18().state_dict(), tiny_model("divided_space_time")
    torch.save(resnet, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"resnet\.pth: .*look like a ResNet") as caught:
        load_pretrained(model, tmp_path / "resnet.pth")
    lines = str(caught.value).split("entries differ): ")[1].split("; ")
    unfit = [f"{k}: {tuple(v.shape)} in the file, not in the model" for k, v in resnet.items()]
    explained = ("head.", "time_embed", "temporal_fc")  # fresh or zero with any image weights
    lacking = [
        f"{k}: missing in the file, {tuple(v.shape)} in the model"
        for k, v in model.state_dict().items()
        if not any(name in k for name in explained)
    ]
    assert sorted(lines) == sorted(unfit + lacking)


def test_wrong_size_is_said_in_config_keys():
    other = tiny_model("space_only", embed_dim=48, depth=2, patch_size=8).state_dict()
    sizes = r"\(EMBED_DIM %s, DEPTH %s, MLP_RATIO 4, PATCH_SIZE %s\)"
    complaint = f"{sizes % (48, 2, 8)}.*{sizes % (96, 3, 16)}"
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(tiny_model("divided_space_time"), other)


def test_summary_is_one_line_and_logged(caplog):
    with caplog.at_level("INFO"):
        report = load_pretrained(tiny_model("divided_space_time"), image_state(), name="vit.pth")
    assert report.summary() in caplog.text
    assert "\n" not in report.summary()
    assert report.summary().startswith("loaded 42 weights from vit.pth; copied 18 (blocks.0.")


def test_python_constructor_loads_nothing_unless_asked(monkeypatch):
    import timesformer.models.vit as vit

    calls = []
    monkeypatch.setattr(vit, "load_pretrained", lambda *args: calls.append(args))
    TimeSformer(32, embed_dim=12, depth=1, num_heads=1)
    assert not calls
    TimeSformer(32, embed_dim=12, depth=1, num_heads=1, pretrained_model="file.pth")
    assert calls[0][1] == "file.pth"


class _Payload:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (_Payload(os.system, "touch hacked"), r"posix\.system"),
        (_Payload(eval, "open('hacked', 'w')"), r"builtins\.eval"),
        (_Payload(partial(os.system, "touch hacked")), r"functools\.partial"),
        (np.array([_Payload(os.system, "touch hacked")]), r"numpy"),
    ],
)
def test_code_in_a_file_is_refused(payload, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": image_state(), "extra": payload}, "evil.pth")
    with pytest.raises(WeightsError, match=rf"evil\.pth: refused: .*{named}") as caught:
        load_pretrained(tiny_model("space_only"), "evil.pth")
    assert "weights_only" not in str(caught.value)  # torch's message says how to run it
    assert not (tmp_path / "hacked").exists()


def test_damaged_or_missing_file_is_named(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(image_state(), whole)
    (tmp_path / "half.pth").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00")
    for name in ("half.pth", "half.safetensors", "absent.pth"):
        with pytest.raises(WeightsError, match=name):
            load_pretrained(tiny_model("space_only"), tmp_path / name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda s: s.pop("blocks.1.attn.qkv.bias"),
            r"blocks\.1\.attn\.qkv\.bias: missing in the file, \(288,\) in the model",
        ),
        (lambda s: s.update({"blocks.0": torch.ones(1)}), r"blocks\.0: \(1,\) in the file, not"),
        (lambda s: s.update({"pos_embed": torch.ones(3)}), r"pos_embed: \(3,\) in the file, \(1"),
        (lambda s: s.update({"pos_embed": torch.ones(1, 8, 96)}), "7 patch positions don't form"),
        (lambda s: s.update({"head.weight": torch.ones(10, 9)}), r"head\.weight: \(10, 9\) in the"),
        (lambda s: s.pop("head.bias"), r"head\.bias: missing in the file"),
        (
            lambda s: s.update({"extra.weight": torch.ones(1)}),
            r"extra\.weight: \(1,\) in the file, not in the model",
        ),
        (
            lambda s: s.update({"norm.weight": torch.ones(5)}),
            r"norm.weight: \(5,\) in the file, \(96,\) in the model",
        ),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_cannot_be_explained_is_an_error(scheme, change, complaint):
    state = image_state(num_classes=10)
    change(state)
    model = tiny_model(scheme)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(model, state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_divided_checkpoint_in_a_joint_model_is_an_error():
    with pytest.raises(
        WeightsError,
        match=r"look like a ViT with divided_space_time .*the model is a ViT with joint_space_time "
        r".*blocks\.0\.temporal_attn\.proj\.bias: \(96,\) in the file, not in the model",
    ):
        load_pretrained(tiny_model("joint_space_time"), video_state())


def test_half_a_video_checkpoint_is_not_taken_for_an_image_model():
    """Without time_embed but with some temporal weights: neither image nor video model."""
    state = video_state()
    del state["blocks.0.temporal_fc.weight"]
    with pytest.raises(WeightsError, match=r"temporal_fc.weight: missing"):
        load_pretrained(tiny_model("divided_space_time"), state)
    state = video_state()
    del state["time_embed"], state["blocks.0.temporal_fc.weight"]
    with pytest.raises(WeightsError, match="time_embed: missing"):
        load_pretrained(tiny_model("divided_space_time"), state)


def shapes_of(model) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_time_embed_is_resized_as_asked(mode):
    state = video_state()
    state["time_embed"] = torch.arange(4.0)[None, :, None].expand(1, 4, 96)
    longer = tiny_model("divided_space_time", num_frames=8)
    report = load_pretrained(longer, state, time_embed_resize=mode)
    assert report.resized == ("time_embed",)
    expected = {
        "nearest": [0, 0, 1, 1, 2, 2, 3, 3],
        "linear": [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3],
    }
    assert longer.time_embed[0, :, 5].tolist() == expected[mode]
    with pytest.raises(ConfigError, match="unknown way to fit time_embed, 'cubic'"):
        load_pretrained(longer, state, time_embed_resize="cubic")


@torch.no_grad()
def test_a_smaller_patch_kernel_gives_the_same_tokens_of_an_enlarged_image():
    """FlexiViT (arXiv 2212.08013, §3.4): what resampling the kernel promises."""
    small = tiny_model("space_only", img_size=32, patch_size=8)
    large = tiny_model("space_only", img_size=64, patch_size=16)
    report = load_pretrained(large, fill_(small).state_dict())
    assert report.resized == ("patch_embed.proj.weight",)
    image = clip_for("flexi", (1, 3, 1, 32, 32))
    patches = image.reshape(1, 3, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    patches = torch.nn.functional.interpolate(patches, size=16, mode="bicubic", antialias=True)
    enlarged = (
        patches.reshape(1, 4, 4, 3, 16, 16).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 1, 64, 64)
    )
    expected, _, _ = small.patch_embed(image)
    tokens, _, _ = large.patch_embed(enlarged)
    torch.testing.assert_close(tokens, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", ["central", "average"])
@torch.no_grad()
def test_tubelets_of_a_still_video_start_as_the_image_model(how):
    image = fill_(tiny_model("space_only")).eval()
    model = tiny_model("divided_space_time", num_frames=6, tubelet_size=3).eval()
    report = load_pretrained(model, image.state_dict(), tubelet_init=how)
    assert report.resized == ("patch_embed.proj.weight",)
    assert accounted(report) == sorted(model.state_dict())
    still = clip_for("still", (1, 3, 1, 64, 64)).expand(-1, -1, 6, -1, -1)
    torch.testing.assert_close(model(still), image(still[:, :, :1]), atol=1e-5, rtol=1e-5)
    kernel, weight = image.patch_embed.proj.weight, model.patch_embed.proj.weight
    assert torch.equal(weight[:, :, 1], kernel if how == "central" else kernel / 3)
    assert bool(weight[:, :, 0].any()) == (how == "average")
    assert load_pretrained(tiny_model("axial", num_frames=6, tubelet_size=3), image.state_dict())


def test_unknown_tubelet_init():
    with pytest.raises(ValueError, match="unknown way to fit tubelet, 'first': central"):
        load_pretrained(tiny_model("space_only"), image_state(), tubelet_init="first")


def test_tubelets_of_another_patch_size_and_of_another_length():
    source = fill_(tiny_model("divided_space_time", img_size=32, patch_size=8, tubelet_size=2))
    model = tiny_model("divided_space_time", tubelet_size=2)
    assert load_pretrained(model, source.state_dict()).resized == ("patch_embed.proj.weight",)
    with pytest.raises(WeightsError, match=r"TUBELET_SIZE 2\).*\(96, 3, 2, 8, 8\) in the file"):
        load_pretrained(tiny_model("divided_space_time", tubelet_size=4), source.state_dict())


@pytest.mark.parametrize("size", [64, 96])
def test_image_weights_without_place_for_cls(size):
    """ViViT's models 3 and 4 average patches: CLS and its position are dropped, and it is told."""
    state = image_state()
    model = tiny_model("factorised_self_attention", img_size=size)
    report = load_pretrained(model, state)
    assert report.unexpected == ("cls_token", "head.weight", "head.bias")
    assert report.resized == ("pos_embed",)
    assert accounted(report) == sorted(model.state_dict())
    if size == 64:
        assert torch.equal(model.pos_embed, state["pos_embed"][:, 1:])
    again = tiny_model("factorised_self_attention", img_size=size)
    assert len(load_pretrained(again, model.state_dict()).loaded) == len(again.state_dict())


def test_weights_without_cls_leave_it_and_the_head_as_they_were(caplog):
    pooled = fill_(tiny_model("factorised_dot_product"))
    state = {k: v for k, v in pooled.state_dict().items() if k != "time_embed"}
    model = tiny_model("divided_space_time")
    before = model.cls_token.clone()
    head = model.head.weight.clone()
    report = load_pretrained(model, state)
    assert report.missing == ("cls_token", "head.weight", "head.bias")
    assert torch.equal(model.cls_token, before)
    assert torch.equal(model.head.weight, head)  # theirs reads the tokens' mean
    assert "has no CLS token" in caplog.text
    assert torch.equal(model.pos_embed[:, 1:], pooled.pos_embed)


def test_positions_that_the_model_does_not_have():
    report = load_pretrained(tiny_model("divided_space_time", pos_embed_type="none"), image_state())
    assert report.unexpected == ("pos_embed", "head.weight", "head.bias")
    assert not report.resized


@pytest.mark.parametrize("scheme", sorted(name for name, _ in ATTENTION_REGISTRY))
def test_image_weights_start_every_scheme(scheme):
    model = fill_(tiny_model(scheme), 5)
    report = load_pretrained(model, image_state())
    assert accounted(report) == sorted(model.state_dict())
    own = model.state_dict()
    assert not any(own[name].any() for name in report.zeroed)
    for name in report.copied:
        block, number, part, tail = name.split(".", 3)
        image = "attn" if part.endswith("_attn") else "norm1"
        assert torch.equal(own[name], own[f"{block}.{number}.{image}.{tail}"])


class Wrapped(torch.nn.Module):
    """A model with an image part, a resizable table and a head of its own."""

    classifier_name = "last.1"

    def __init__(self, classes: int = 4, length: int = 6) -> None:
        super().__init__()
        self.spatial = tiny_model("space_only", num_classes=0)
        self.table_pos = torch.nn.Parameter(torch.ones(length, 5))
        self.last = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(96, classes))

    def image_part(self):
        return "spatial.", self.spatial

    def fit_positions(self, state, *how):
        table = state["table_pos"]
        same = table.shape == self.table_pos.shape
        return {} if same else {"table_pos": table[: len(self.table_pos)]}


def test_image_weights_go_into_the_image_part():
    model, state = Wrapped(), image_state()
    report = load_pretrained(model, state)
    assert accounted(report) == sorted(model.state_dict())
    assert report.missing == ("table_pos", "last.1.weight", "last.1.bias")
    assert report.unexpected == ("head.weight", "head.bias")
    assert "spatial.blocks.0.attn.qkv.weight" in report.loaded
    assert torch.equal(model.spatial.pos_embed, state["pos_embed"])


def test_a_whole_model_goes_by_name():
    source = Wrapped(classes=3, length=9)
    model, other_head = Wrapped(classes=3, length=9), Wrapped(classes=4)
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    assert len(load_pretrained(model, {"model_state": state}).loaded) == len(source.state_dict())
    report = load_pretrained(other_head, state)
    assert report.unexpected == report.missing == ("last.1.weight", "last.1.bias")
    assert report.resized == ("table_pos",)
    assert accounted(report) == sorted(other_head.state_dict())
    before = shapes_of(other_head)
    state["module.table_pos"] = torch.ones(2, 2)
    with pytest.raises(WeightsError, match=r"table_pos: \(2, 2\) in the file, \(6, 5\) in the"):
        load_pretrained(other_head, state)
    assert shapes_of(other_head) == before


def fake_torchvision(monkeypatch, answer):
    import torchvision.models

    calls = []

    def get_state_dict(self, *args, **kwargs):
        calls.append((str(self), kwargs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", get_state_dict)
    return calls


def test_torchvision_names(monkeypatch):
    state = Wrapped().state_dict()
    calls = fake_torchvision(monkeypatch, state)
    for name in ("mvit_v2_s", "mvit_v2_s.KINETICS400_V1"):
        report = load_pretrained(Wrapped(), f"torchvision/{name}")
        assert report.source == f"torchvision/{name}"
        assert len(report.loaded) == len(state)
    assert [name for name, _ in calls] == ["MViT_V2_S_Weights.KINETICS400_V1"] * 2
    assert all(kwargs["check_hash"] and kwargs["weights_only"] for _, kwargs in calls)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mvit_v2_x", r"no model mvit_v2_x; did you mean torchvision/mvit_v2_s\?"),
        ("s3d.IMAGENET", r"no such weights; there are torchvision/s3d\.KINETICS400_V1"),
        ("s3d", r"can't fetch torchvision/s3d \(no route\); .*download https://\S+/s3d-"),
    ],
)
def test_torchvision_errors_are_one_line(name, complaint, monkeypatch):
    fake_torchvision(monkeypatch, OSError("no route\nto host"))
    with pytest.raises(WeightsError, match=complaint) as caught:
        load_pretrained(Wrapped(), f"torchvision/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "holds no weights: neither model.safetensors nor pytorch_model.bin"),
        ({".metadata": b"", "__0_0.distcp": b""}, "dcp_to_torch .* makes a file of it"),
        ({"shard-00001-model-00001-of-00001.safetensors": b""}, "enable_consolidation"),
        ({"model.safetensors": b"", "config.json": b"{"}, "not a readable safetensors file"),
        ({"pytorch_model.bin": b"junk"}, r"pytorch_model\.bin: not a readable weights file"),
    ],
)
def test_folders_without_sound_weights(files, complaint, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=complaint) as caught:
        load_pretrained(tiny_model("space_only"), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "config.json: not readable JSON"),
        ("[]", "config.json: holds a list, not an object"),
        ('{"model_type": "timesformer", "qkv_bias": false}', "qkv_bias is False"),
    ],
)
def test_folders_with_a_wrong_config(config, complaint, tmp_path):
    save_file(image_state(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(tiny_model("space_only"), tmp_path)
