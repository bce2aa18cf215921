"""`timesformer convert` as a user runs it."""

from __future__ import annotations

import json

import pytest
import torch
from golden_recipe import fill_
from google_layout import google_vit, save
from small_run import complaint_of

from timesformer.commands.convert import main
from timesformer.models.create import from_pretrained, save_pretrained
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.sources import read_weights
from timesformer.utils.checkpoint import get_path_to_checkpoint
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.torch_file import read_checkpoint, write_checkpoint

NAMES = ("a", "b", "c")
RGB = {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB"}


def small_model(scheme: str = "divided_space_time") -> TimeSformer:
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3}
    return fill_(TimeSformer(32, 16, 3, 4, scheme, **sizes))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "source"
    save_pretrained(small_model(), path, preprocessing=RGB, class_names=NAMES)
    return path


@pytest.mark.parametrize("scheme", ["divided_space_time", "joint_space_time"])
def test_round_trip_through_every_layout_is_bit_equal(scheme, tmp_path, capsys):
    model = small_model(scheme)
    save_pretrained(model, tmp_path / "0", preprocessing=RGB, class_names=NAMES)
    stops = [  # none of which is told the number of heads
        ("native", "1.pyth"), ("hf", "2"), ("safetensors", "3"), ("mmaction2", "4.pth"),
        ("safetensors", "5.safetensors"), ("native", "6.pyth"),
    ]  # fmt: skip
    source = tmp_path / "0"
    for layout, name in stops:
        main([str(source), str(tmp_path / name), "--to", layout])
        source = tmp_path / name
        printed = capsys.readouterr().out
        assert "parameters (" in printed
        assert f"wrote {source} ({layout})" in printed
    state = read_checkpoint(source, require_digest=True)["model_state"]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    third = from_pretrained(tmp_path / "3")
    assert third.class_names == NAMES
    assert third.preprocessing["mean"] == RGB["mean"]


def test_published_checkpoint_with_its_config_text(tmp_path, capsys):
    """Heads, frames, mean and std are in the config; SSv2 models take BGR whatever it says."""
    cfg = "DATA:\n  MEAN: [0.1, 0.2, 0.3]\n  STD: [0.4, 0.5, 0.6]\n  NUM_FRAMES: 4\n"
    cfg += "TIMESFORMER:\n  ATTENTION_TYPE: divided_space_time\nTRAIN:\n  DATASET: ssv2\n"
    content = {"epoch": 14, "model_state": small_model().state_dict(), "cfg": cfg}
    torch.save(content | {"optimizer_state": {}}, tmp_path / "ssv2.pyth")
    main([str(tmp_path / "ssv2.pyth"), str(tmp_path / "hf"), "--to", "hf", "--num-heads", "3"])
    assert "channel_order BGR" in capsys.readouterr().out
    processor = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.3, 0.2, 0.1]
    state = read_weights(tmp_path / "hf" / "model.safetensors")
    kernel = state["timesformer.embeddings.patch_embeddings.projection.weight"]
    assert torch.equal(kernel.flip(1), content["model_state"]["model.patch_embed.proj.weight"])


def test_google_npz_becomes_safetensors(tmp_path):
    path = save(tmp_path / "vit.npz", google_vit(image=64))
    main([str(path), str(tmp_path / "vit"), "--to", "safetensors"])
    model = from_pretrained(tmp_path / "vit")
    assert model.model.attention_type == "space_only"
    assert model.model.blocks[0].attn.num_heads == 3
    video = from_pretrained(tmp_path / "vit", attention_type="divided_space_time", num_classes=9)
    assert not video.model.time_embed.any()


def test_mean_std_and_names_of_a_source_that_has_none(tmp_path):
    torch.save(small_model().state_dict(), tmp_path / "bare.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    words = [str(tmp_path / "bare.pth"), str(tmp_path / "hf"), "--to", "hf", "--num-heads", "3"]
    with pytest.raises(WeightsError, match="how its frames are normalised"):
        main(words)
    words += ["--class-names", str(tmp_path / "names.txt")]
    main([*words, "--mean", "0.5", "0.5", "0.5", "--std", "0.2", "0.2", "0.2"])
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}
    model = from_pretrained(tmp_path / "hf")
    assert model.preprocessing == {
        "mean": [0.5] * 3, "std": [0.2] * 3, "channel_order": "RGB", "short_side": 32,
        "crop_size": 32,
    }  # fmt: skip


def test_nothing_is_replaced_without_force(folder, tmp_path):
    target = tmp_path / "there.pyth"
    target.write_text("precious")
    with pytest.raises(WeightsError, match=r"there\.pyth: is there already; --force"):
        main([str(folder), str(target), "--to", "native"])
    assert target.read_text() == "precious"
    main([str(folder), str(target), "--to", "native", "--force"])
    assert read_checkpoint(target)["class_names"] == list(NAMES)
    with pytest.raises(WeightsError, match="is a file, and --to hf writes the other"):
        main([str(folder), str(target), "--to", "hf", "--force"])
    with pytest.raises(WeightsError, match="is a folder, and --to mmaction2 writes the other"):
        main([str(folder), str(folder), "--to", "mmaction2", "--force"])
    main([str(folder), str(folder), "--to", "safetensors", "--force"])
    assert from_pretrained(folder).class_names == NAMES


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--mean", "1", "1", "1"], "--mean and --std belong together"),
        (
            ["--mean", "1", "1", "1", "--std", "1", "1", "1"],
            r"says itself mean \[0\.45.*: leave --mean and --std out",
        ),
        (["--num-heads", "4"], "says itself num_heads 3: leave --num-heads out"),
        (
            ["--class-names", "absent.txt"],
            r"^--class-names 'absent\.txt' is neither a file nor a shipped list",
        ),
        (
            ["--class-names", "kinetics400"],
            "^--class-names 'kinetics400' has 400 names, but the number of classes of .* is 3",
        ),
    ],
)
def test_contradictions(words, complaint, folder, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        main([str(folder), str(tmp_path / "out"), "--to", "hf", *words])
    assert not (tmp_path / "out").exists()


def test_of_a_run_the_checkpoint_is_named(tmp_path, capsys):
    """Not only the folder: there may be a damaged newer one."""
    content = {"model_state": small_model().state_dict(), "epoch": 1}
    content["architecture"] = small_model().architecture.to_json()
    path = get_path_to_checkpoint(tmp_path / "run", 2)
    path.parent.mkdir(parents=True)
    write_checkpoint(path, content)
    main([str(tmp_path / "run"), str(tmp_path / "a.pyth"), "--to", "native"])
    assert f"read {path}: " in capsys.readouterr().out


def test_a_mistake_is_one_line(tmp_path, capsys):
    printed = complaint_of(main, "absent.pth", tmp_path / "x", "--to", "hf")
    assert printed.startswith("error: absent.pth: no such weights file")
    assert (capsys.readouterr().out, printed.count("\n")) == ("", 1)
