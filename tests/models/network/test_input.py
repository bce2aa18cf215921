"""Input that no model can read: one line that names the shape it should have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import timesformer
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import ConfigError, WeightsError

WRONG: dict[str, tuple[Any, str]] = {
    "T before C": ((2, 8, 3, 32, 32), r"\(B, 3, T, H, W\), not \(2, 8, 3.*x\.transpose\(1, 2\)$"),
    "C last": ((2, 8, 32, 32, 3), r"take x\.permute\(0, 4, 1, 2, 3\)$"),
    "one clip": ((3, 8, 32, 32), r"take x\[None\]$"),
    "images": ((2, 3, 32, 32), r"take x\[:, :, None\]$"),
    "grey": ((2, 1, 8, 32, 32), r"not \(2, 1, 8, 32, 32\)$"),
    "a vector": ((3,), r"not \(3,\)$"),
    "no clips": ((0, 3, 8, 32, 32), "no clips, or no frames, in"),
    "no frames": ((1, 3, 0, 32, 32), "no clips, or no frames, in"),
    "uint8": (torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8), r"not torch\.uint8: model\.transf"),
    "an array": (np.zeros((1, 3, 8, 32, 32)), "are a tensor .*, not ndarray"),
}


@pytest.mark.parametrize("name", sorted(name for name, _ in MODEL_REGISTRY))
def test_what_is_no_batch_of_clips(name: str) -> None:
    with torch.device("meta"):
        model = timesformer.create_model(name, num_frames=8, img_size=32, num_classes=3).eval()
    for given, complaint in WRONG.values():
        x = torch.empty(given, device="meta") if isinstance(given, tuple) else given
        with pytest.raises(ValueError, match=complaint):
            model(x)


def test_sizes_that_do_not_fit() -> None:
    with torch.device("meta"):
        vit = timesformer.create_model("vit_tiny_patch16_224")
        vivit = timesformer.create_model("vivit_factorised_encoder", tubelet_size=2)
        s3d = timesformer.create_model("s3d").eval()
        for model in (vit, vivit):
            with pytest.raises(ValueError, match="33×40 pixels don't divide into patches of 16×16"):
                model(torch.empty(1, 3, 8, 33, 40))
        with pytest.raises(ValueError, match="7 frames don't divide into tubelets of 2"):
            vivit(torch.empty(1, 3, 7, 32, 32))
        with pytest.raises(ValueError, match="needs 5 frames of 17×17 pixels"):
            s3d(torch.empty(1, 3, 8, 16, 32))


def test_arguments_are_called_by_their_names() -> None:
    """Who writes Python knows no configuration keys."""
    create = timesformer.create_model
    with pytest.raises(TypeError, match="no argument 'pretrained'; did you mean pretrained_model"):
        TimeSformer(pretrained=True)
    with pytest.raises(ConfigError, match=r"create_model: pretrained names weights.*can't be True"):
        create("vit_tiny_patch16_224", pretrained=True)
    for call in (TimeSformer.from_pretrained, lambda x: timesformer.load_pretrained(None, x)):
        with pytest.raises(WeightsError, match="True"):
            call(True)
    for name, knobs, complaint in (
        ("vit_tiny_patch16_224", {"attention_type": "axal"}, "attention_type 'axal' is not"),
        ("s3d", {"num_frames": 2}, "num_frames 2 is too few"),
        ("mvit_v1_b", {"img_size": 16}, "img_size 16 is too small"),
    ):
        with pytest.raises(ConfigError, match=f"create_model: {complaint}"):
            create(name, **knobs)
