"""Frames as people have them, and the pixels that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from timesformer.clips.frames import as_frames


@pytest.mark.parametrize(
    ("mode", "levels"), [("I;16", 30000), ("I", 30000), ("L", 117), ("RGB", (117, 117, 117))]
)
def test_pictures_as_frame_folders_have_them(mode: str, levels: Any) -> None:
    assert (as_frames([Image.new(mode, (4, 2), levels)]) == 117).all()


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as picture:
        assert as_frames([picture]).shape == (1, 16, 8, 3)


def test_arrays_as_people_have_them() -> None:
    frames = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    assert torch.equal(as_frames(frames[..., ::-1]), torch.from_numpy(frames).flip(3))
    assert torch.equal(as_frames(list(frames[..., ::-1])), torch.from_numpy(frames).flip(3))
    for wrong in (np.array(["a"]), [Image.new("F", (4, 4))], [frames[0], frames[0] > 3]):
        with pytest.raises(ValueError, match=r"uint8|whole numbers"):
            as_frames(wrong)
