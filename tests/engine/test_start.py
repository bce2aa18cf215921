"""What weights to train from say of their input is held against the config."""

from __future__ import annotations

import logging

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.engine.start import compare_input

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
