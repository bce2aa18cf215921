"""From a run's checkpoint to every layout and back: the same model, whatever its config says.

The config of vit_tiny and vit_small says ViT-B's twelve heads, which fit the shapes and give other
numbers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_recipe import clip_for

from timesformer.config.defaults import get_cfg
from timesformer.models.architecture import NAMED_SIZES
from timesformer.models.build import MODEL_REGISTRY, make_model
from timesformer.models.create import from_pretrained, save_pretrained
from timesformer.models.vit import TimeSformer
from timesformer.models.weights.bundle import _architecture, read_bundle
from timesformer.models.weights.save import (
    write_hugging_face,
    write_mmaction2,
    write_native,
    write_safetensors,
)
from timesformer.utils.torch_file import write_checkpoint

NAMES = ["vit_tiny_patch16_224", "vit_small_patch16_224"]
RGB = {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB"}


@pytest.fixture(scope="module", params=NAMES)
def any_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Name, the checkpoint as a run writes it, a clip and its logits."""
    return write_run(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    return write_run(NAMES[0], tmp_path_factory.mktemp("run"))


def write_run(name: str, folder: Path):
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = name, 3
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    cfg.DATA.NUM_FRAMES = 2
    torch.manual_seed(1)
    model = make_model(cfg).eval()
    content = {
        "epoch": 0,
        "model_state": model.state_dict(),
        "optimizer_state": {},
        "cfg": cfg.dump(),
        "architecture": model.architecture.to_json(),
        "preprocessing": RGB,
        "class_names": ["a", "b", "c"],
    }
    path = folder / "run.pyth"
    write_checkpoint(path, content)
    clip = clip_for("round trip", (1, 3, 2, 32, 32))
    with torch.no_grad():
        return name, path, clip, model(clip)


def assert_equal_logits(source: Path, run, **known) -> None:
    name, _, clip, expected = run
    model = from_pretrained(source, **known)
    assert model.architecture.num_heads == NAMED_SIZES[name][2]
    with torch.no_grad():
        torch.testing.assert_close(model(clip), expected, atol=0, rtol=0)


def test_a_runs_checkpoint(any_run) -> None:
    assert_equal_logits(any_run[1], any_run)


@pytest.mark.parametrize("layout", ["pyth", "safetensors", "hf"])
def test_converted(layout, run, tmp_path) -> None:
    writers = {"pyth": write_native, "safetensors": write_safetensors, "hf": write_hugging_face}
    target = tmp_path / ("model.pyth" if layout == "pyth" else "folder")
    writers[layout](target, read_bundle(run[1]))
    assert_equal_logits(target, run)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_heads": 4},  # 16 wide, not 64
        {"attention_type": "space_only", "num_frames": 3},
        {"attention_type": "joint_space_time", "pos_embed_type": "space"},
    ],
    ids=str,
)
def test_mmaction2_and_back(changes, tmp_path) -> None:
    """What their names don't tell stands beside the weights; where it doesn't, heads are D / 64."""
    torch.manual_seed(1)
    sizes = {"img_size": 32, "num_classes": 3, "num_frames": 2, "embed_dim": 64, "depth": 2}
    model = TimeSformer(**(sizes | {"num_heads": 1} | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_pretrained(model, tmp_path / "native")
    write_mmaction2(tmp_path / "mm.pth", read_bundle(tmp_path / "native"))
    again = from_pretrained(tmp_path / "mm.pth")
    clip = clip_for("mmaction2", (1, 3, 3 if changes.get("num_frames") else 2, 32, 32))
    assert again.architecture == model.architecture
    with torch.no_grad():
        assert torch.equal(again(clip), model(clip))
    theirs = torch.load(tmp_path / "mm.pth", weights_only=True)
    torch.save({"meta": {}, "state_dict": theirs["state_dict"]}, tmp_path / "theirs.pth")
    assert from_pretrained(tmp_path / "theirs.pth").architecture.num_heads == 1


def test_what_is_stored_wins_over_the_config(run, tmp_path) -> None:
    """The text is for people and other programs; a wrong one doesn't reach the model."""
    _, path, _, _ = run
    content = torch.load(path, weights_only=True)
    content["cfg"] = content["cfg"].replace("NUM_HEADS: 12", "NUM_HEADS: 2")
    content["cfg"] = content["cfg"].replace("divided_space_time", "space_then_time")
    assert "NUM_HEADS: 2" in content["cfg"]
    write_checkpoint(tmp_path / "edited.pyth", content)
    assert_equal_logits(tmp_path / "edited.pyth", run)


def test_every_registered_model_comes_back(tmp_path) -> None:
    """Not only ViTs: a checkpoint says which model it is of."""
    for name in ("vivit_factorised_encoder", "s3d"):
        cfg = get_cfg()
        cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = name, 3
        cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
        if name != "s3d":
            cfg.TIMESFORMER.EMBED_DIM, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.NUM_HEADS = 24, 1, 3
        model = make_model(cfg).eval()
        clip = clip_for(name, (1, 3, 8, 32, 32))
        content = {"model_state": model.state_dict(), "cfg": cfg.dump()}
        for said in ({}, {"architecture": model.architecture.to_json()}):
            write_checkpoint(tmp_path / "a.pyth", content | said)
            with torch.no_grad():
                assert torch.equal(from_pretrained(tmp_path / "a.pyth")(clip), model(clip))
        write_safetensors(tmp_path / name, read_bundle(tmp_path / "a.pyth"))
        with torch.no_grad():
            assert torch.equal(from_pretrained(tmp_path / name)(clip), model(clip))


@pytest.mark.parametrize("name", sorted(name for name, _ in MODEL_REGISTRY))
def test_weights_of_every_registered_model_are_taken_for_it(name) -> None:
    """Swin's have a patch_embed, as a ViT's."""
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = name, 3
    with torch.device("meta"):
        model = make_model(cfg)
    said = {"architecture": model.architecture.to_json()}
    assert _architecture(said, model.state_dict(), {}) == model.architecture
