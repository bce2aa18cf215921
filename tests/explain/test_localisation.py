"""Synthetic says where its object is, and a map is held against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timesformer.explain.localisation import localisation
from timesformer.prepare.synthetic_writer import SyntheticSpec


def test_the_object_is_where_the_frames_change() -> None:
    spec = SyntheticSpec(seed=3)
    for index in range(6):
        frames, opacity = spec.scene("train", index)
        assert np.array_equal(frames, spec.frames("train", index))
        assert opacity.shape == frames.shape[:3]
        without = np.median(frames[opacity.max((1, 2)) < 2], axis=0)
        change = np.abs(frames - without).mean(-1)
        assert change[opacity > 0.9].mean() > 2 * change[opacity == 0].mean()


def test_maps_on_and_off_the_object() -> None:
    opacity = torch.zeros(3, 32, 48)
    opacity[0, :16, :16] = opacity[1, 16:, 32:] = 1  # it is out of the picture in the last frame
    on = torch.zeros(3, 2, 3)
    on[0, 0, 0] = on[1, 1, 2] = 0.5
    found = localisation(on, opacity)
    assert (found.energy, found.pointing) == (1.0, 1.0)
    assert found.energy_chance == pytest.approx(2 / 18)
    assert found.pointing_chance == pytest.approx(1 / 6)
    for wrong in (on[[1, 0, 2]], on.flip(1), on.flip(2)):
        assert localisation(wrong, opacity)[:1] == (0.0,)
        assert localisation(wrong, opacity).pointing == 0.0
