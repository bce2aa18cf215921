"""What a file says of its model and what its weights tell: agreement or an error, no guess."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_recipe import clip_for, fill_
from google_layout import google_vit, save

from timesformer.commands.convert import main as convert
from timesformer.models.create import create_model, from_pretrained
from timesformer.models.vit import TimeSformer
from timesformer.models.weights import bundle
from timesformer.models.weights.bundle import read_bundle
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.save import save_pretrained
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.torch_file import write_checkpoint

SIZES: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "num_classes": 3, "num_frames": 4,
    "embed_dim": 24, "depth": 2, "num_heads": 3,
}  # fmt: skip
CLIP = clip_for("said", (1, 3, 4, 32, 32))


def model_of(**changes: Any) -> TimeSformer:
    return fill_(TimeSformer(**(SIZES | changes))).eval()


def checkpoint(path, made: TimeSformer, cfg: str = "", **stored: Any):
    content: dict[str, Any] = {"model_state": made.state_dict(), "cfg": cfg}
    said = made.architecture.to_json() | stored
    said = {name: value for name, value in said.items() if value != "absent"}
    write_checkpoint(path, content | ({"architecture": said} if stored else {}))
    return path


@torch.no_grad()
def same(source, model: TimeSformer, **overrides: Any) -> bool:
    return torch.equal(from_pretrained(source, **overrides)(CLIP), model(CLIP))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": 8}, {"patch_size": 4}, {"tubelet_size": 2}, {"img_size": 64},
        {"num_classes": 0}, {"num_classes": 5}, {"depth": 10**9}, {"embed_dim": 48},
        {"pos_embed_type": "space"},
    ],
    ids=str,
)  # fmt: skip
def test_a_stored_architecture_that_its_weights_deny_is_an_error(wrong, tmp_path):
    path = checkpoint(tmp_path / "a.pyth", model_of(), **wrong)
    ((name, value),) = wrong.items()
    with pytest.raises(WeightsError, match=f"its architecture says {name} {value!r}, its weights"):
        from_pretrained(path)


@pytest.mark.parametrize(
    "wrong",
    [
        ({"num_heads": 7}, "num_heads 7 doesn't divide"),
        ({"num_heads": 0}, "num_heads must be at least 1"),
        ({"attention_type": "x"}, "no attention scheme is called 'x'"),
        ({"model": "x"}, "'x' is not known"),
        ({"mlp_ratio": 2.0}, "its architecture says mlp_ratio 2.0, its weights 4.0"),
        ({"mlp_ratio": 1e308}, r"its architecture says mlp_ratio 1e\+308, its weights 4.0"),
        ({"drop_path_rate": float("inf")}, "drop_path_rate must be"),
    ],
    ids=str,
)
def test_a_stored_architecture_that_cannot_be_is_an_error(wrong, tmp_path):
    stored, complaint = wrong
    path = checkpoint(tmp_path / "a.pyth", model_of(), **stored)
    with pytest.raises(WeightsError, match=f"a.pyth: .*{complaint}"):
        from_pretrained(path)


@pytest.mark.parametrize("stored", [{}, [], "text", 3])
def test_an_architecture_that_is_none_is_an_error(stored, tmp_path):
    content = {"model_state": model_of().state_dict(), "architecture": stored}
    write_checkpoint(tmp_path / "a.pyth", content)
    with pytest.raises(WeightsError, match="not the knobs of a model"):
        from_pretrained(tmp_path / "a.pyth")


@pytest.mark.parametrize("absent", sorted(SIZES))
def test_what_is_not_stored_is_told_by_the_config_and_the_weights(absent, tmp_path):
    """An earlier version may have known fewer knobs; its defaults aren't this model's."""
    model = model_of()
    path = checkpoint(
        tmp_path / "a.pyth", model, "TIMESFORMER:\n  NUM_HEADS: 3\n", **{absent: "absent"}
    )
    assert same(path, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_type": "parallel_space_time"}, {"cls_in_time": True}, {"num_heads": 4},
        {"img_size": (16, 64)}, {"pos_embed_type": "none"}, {"mlp_ratio": 2.5},
    ],
    ids=str,
)  # fmt: skip
def test_one_safetensors_file_says_what_it_is(changes, tmp_path):
    """Names and shapes alone would make another model of each."""
    model = model_of(**changes)
    save_pretrained(model, tmp_path / "folder", class_names=["a", "b", "c"])
    convert([str(tmp_path / "folder"), str(tmp_path / "a.safetensors"), "--to", "safetensors"])
    again = from_pretrained(tmp_path / "a.safetensors")
    assert again.architecture == model.architecture
    assert again.class_names == ("a", "b", "c")
    clip = CLIP if changes.get("img_size") is None else clip_for("wide", (1, 3, 4, 16, 64))
    with torch.no_grad():
        assert torch.equal(again(clip), model(clip))
    other = TimeSformer(**(SIZES | changes))
    assert len(load_pretrained(other, tmp_path / "a.safetensors").loaded) == len(other.state_dict())


def test_heads_that_nothing_says_are_not_guessed_where_they_cannot_be(tmp_path):
    model = model_of()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="isn't a multiple of 64 to tell it: say num_heads"):
        from_pretrained(tmp_path / "bare.pth")
    assert same(tmp_path / "bare.pth", model, num_heads=3)
    with pytest.raises(WeightsError, match="say num_heads"):
        convert([str(tmp_path / "bare.pth"), str(tmp_path / "x"), "--to", "safetensors"])
    words = [str(tmp_path / "bare.pth"), str(tmp_path / "a.pyth"), "--to", "native"]
    convert([*words, "--num-heads", "3"])
    assert same(tmp_path / "a.pyth", model)
    words = [str(tmp_path / "a.pyth"), str(tmp_path / "b.pyth"), "--to", "native"]
    with pytest.raises(ConfigError, match="says itself num_heads 3"):
        convert([*words, "--num-heads", "6"])


def test_frames_that_are_not_square_can_be_said(tmp_path):
    model = model_of(img_size=(32, 48))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    again = from_pretrained(tmp_path / "bare.pth", num_heads=3, img_size=(32, 48))
    assert again.architecture.img_size == (32, 48)


def test_a_scheme_that_names_do_not_tell_is_said(tmp_path, caplog):
    torch.save(model_of().state_dict(), tmp_path / "bare.pth")
    with caplog.at_level("WARNING"):
        from_pretrained(tmp_path / "bare.pth", num_heads=3)
    assert "taken for divided_space_time; it could be parallel_space_time" in caplog.text


def test_google_files_say_their_heads(tmp_path):
    path = save(tmp_path / "vit.npz", google_vit(image=64))
    assert read_bundle(path).architecture.num_heads == 3


def test_an_image_model_without_cls_is_not_taken_for_a_video_model(tmp_path):
    model = model_of(attention_type="factorised_dot_product", num_heads=2)
    state = {k: v for k, v in model.model.state_dict().items() if k != "time_embed"}
    torch.save(state, tmp_path / "gap.pth")
    with pytest.raises(WeightsError, match="an image model without CLS"):
        from_pretrained(tmp_path / "gap.pth", num_heads=2)
    video = from_pretrained(
        tmp_path / "gap.pth", num_heads=2, attention_type="factorised_self_attention"
    )
    assert video.architecture.attention_type == "factorised_self_attention"


@pytest.mark.parametrize("scheme", ["divided_space_time", "joint_space_time", "axial"])
def test_an_image_model_starts_the_video_model_that_is_asked_for(scheme, tmp_path):
    image = model_of(attention_type="space_only")
    torch.save(image.state_dict(), tmp_path / "image.pth")
    video = from_pretrained(tmp_path / "image.pth", attention_type=scheme, num_heads=3)
    assert video.architecture.attention_type == scheme
    assert video.model.time_embed.eq(0).all()
    still = CLIP[:, :, :1].expand(-1, -1, 8, -1, -1)
    if scheme == "divided_space_time":
        with torch.no_grad():
            torch.testing.assert_close(video(still), image(still), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scheme", ["divided_space_time", "axial"])
def test_a_bare_file_without_time_embed_whose_scheme_is_plain(scheme, tmp_path):
    model = model_of(attention_type=scheme, pos_embed_type="space")
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    assert (
        from_pretrained(tmp_path / "bare.pth", num_heads=3).architecture.pos_embed_type == "space"
    )


def test_a_config_whose_scheme_the_weights_deny(tmp_path):
    model = model_of(attention_type="space_only")
    cfg = "TIMESFORMER:\n  ATTENTION_TYPE: joint_space_time\n  NUM_HEADS: 3\n"
    with pytest.raises(WeightsError, match="there is no time_embed, which joint_space_time has"):
        from_pretrained(checkpoint(tmp_path / "a.pyth", model, cfg))


@pytest.mark.parametrize("name", ["vit_large_patch16_224", "vit_tiny_patch16_224"])
def test_a_name_whose_size_the_weights_deny_decides_nothing(name, tmp_path):
    model = model_of(embed_dim=128, num_heads=2)
    path = checkpoint(tmp_path / "a.pyth", model, f"MODEL:\n  MODEL_NAME: {name}\n")
    for read in (from_pretrained, TimeSformer.from_pretrained):
        assert read(path).architecture == model.architecture


def test_a_ratio_that_was_worked_out_gives_its_width_again():
    for width, hidden in ((56, 115), (56, 230), (200, 201), (1408, 1414)):
        with torch.device("meta"):
            block = TimeSformer(32, embed_dim=width, num_heads=2, depth=1, mlp_ratio=hidden / width)
        assert block.model.blocks[0].mlp.fc1.out_features == hidden


@pytest.mark.parametrize("name", ["s3d", "vtn"])
def test_models_without_a_head_come_back(name, tmp_path):
    sizes = {} if name == "s3d" else {"embed_dim": 24, "depth": 1, "num_heads": 3}
    model = create_model(name, img_size=32, num_frames=6, num_classes=4, **sizes).eval()
    model.reset_classifier(0)
    save_pretrained(model, tmp_path / name)
    clip = clip_for(name, (1, 3, 6, 32, 32))
    with torch.no_grad():
        assert torch.equal(from_pretrained(tmp_path / name)(clip), model(clip))


def test_compiled_blocks_are_saved_under_their_own_names(tmp_path):
    model = model_of()
    with torch.no_grad():
        expected = model(CLIP)
    model.model.blocks[1] = torch.compile(model.model.blocks[1])
    save_pretrained(model, tmp_path)
    with torch.no_grad():
        assert torch.equal(from_pretrained(tmp_path)(CLIP), expected)
    torch.save(model.state_dict(), tmp_path / "compiled.pth")
    assert load_pretrained(model_of(), tmp_path / "compiled.pth").missing == ()


def test_a_head_that_was_replaced_behind_the_models_back(tmp_path):
    model = model_of()
    model.model.reset_classifier(5)
    with pytest.raises(ConfigError, match="its head has 5 classes, its architecture 3"):
        save_pretrained(model, tmp_path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("facebook/timesformer-base-finetuned-k400", "hf/facebook/timesformer-base-finetuned-k400"),
        *(
            (name, name)
            for name in ("C:/model", "C:\\a/b", "./a", "~/a", "a/b/c", "a/b.pth", "timm/x")
        ),
    ],
)
def test_what_is_an_id_of_the_hub(name: str, source: str) -> None:
    assert bundle._hub_id(name) == source
