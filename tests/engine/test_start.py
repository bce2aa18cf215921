"""What weights to train from say of their input is held against the config."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from small_run import small_cfg

from timesformer.config.defaults import get_cfg
from timesformer.engine.optimizer import construct_optimizer
from timesformer.engine.start import begin, compare_input
from timesformer.models.build import build_model
from timesformer.utils.checkpoint import write_checkpoint

HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "BGR", "num_frames": 99}


@pytest.mark.parametrize(("image", "level"), [(False, "WARNING"), (True, "INFO")])
def test_input_of_weights_that_is_not_the_configs_is_said_by_key(image, level, caplog):
    with caplog.at_level(logging.INFO):
        compare_input(get_cfg(), "w.pth", {"preprocessing": HALVES}, image=image)
    told = [r.getMessage() for r in caplog.records if r.levelname == level]
    assert len(told) == 3
    for line, words in zip(
        told, ("DATA.MEAN", "DATA.STD", "DATA.REVERSE_INPUT_CHANNEL"), strict=True
    ):
        assert line.startswith("w.pth expects")
        assert words in line
    assert "(0.5, 0.5, 0.5)" in told[0]
    assert "(0.45, 0.45, 0.45)" in told[0]


def test_weights_that_say_nothing_or_the_same_are_not_told(caplog):
    with caplog.at_level(logging.INFO):
        compare_input(get_cfg(), "w.pth", {})
        same = {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB", "num_frames": 99}
        compare_input(get_cfg(), "w.pth", {"preprocessing": same})
    assert not caplog.records


@pytest.mark.parametrize("reset", [False, True])
def test_the_head_of_other_class_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reset: bool
) -> None:
    """The same classes in another order fit in shape; the head is kept only where that is asked."""
    names = [f"class {i}" for i in range(6)]
    cfg = small_cfg(tmp_path, tmp_path)
    theirs = build_model(cfg)
    path = tmp_path / "theirs.pyth"
    content = {"model_state": theirs.state_dict(), "architecture": theirs.architecture.to_json()}
    write_checkpoint(path, content | {"class_names": names[::-1]})
    key = "TRAIN__CHECKPOINT_FILE_PATH" if reset else "TIMESFORMER__PRETRAINED_MODEL"
    changes = {key: path, "TRAIN__CHECKPOINT_EPOCH_RESET": reset}
    cfg = small_cfg(tmp_path, tmp_path, **changes, RNG_SEED=5)
    torch.manual_seed(5)
    ours = build_model(cfg)
    begin(cfg, ours, construct_optimizer(ours, cfg), class_names=names)
    assert torch.equal(ours.model.head.weight, theirs.model.head.weight) == reset
    assert torch.equal(ours.model.pos_embed, theirs.model.pos_embed)
    assert "other class names, or in another order" in caplog.text
