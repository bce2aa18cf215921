"""Maps of many videos are held against their objects, as the model sees these, and averaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from timesformer import create_model
from timesformer.explain import proof
from timesformer.explain.proof import prove, seen_by
from timesformer.models.base import VideoModel
from timesformer.models.explain.faithfulness import Curves, Faithfulness


@pytest.fixture
def model() -> VideoModel:
    knobs = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5, "num_frames": 2}
    made: VideoModel = create_model("vit_base_patch16_224", img_size=32, **knobs)  # type: ignore[assignment]
    said = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
    made.preprocessing = said | {"num_frames": 2, "short_side": 32, "crop_size": 32}
    return made


def opacity_of(frames: int) -> np.ndarray:
    """The object is in the upper left quarter of the centre of each frame, which is wider."""
    opacity = np.zeros((frames, 32, 48), np.float32)
    opacity[:, :16, 8:24] = 1
    return opacity


def test_the_object_is_cropped_as_frames_are(model: VideoModel) -> None:
    seen = seen_by(model, torch.from_numpy(opacity_of(2)))
    expected = torch.zeros(2, 32, 32)
    expected[:, :16, :16] = 1
    torch.testing.assert_close(seen, expected, atol=0.01, rtol=0)


def test_means_over_videos(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first map is on the object and believable; the second isn't; the third has no object."""
    on, off = np.zeros((2, 2, 2, 2), np.float32)
    on[:, 0, 0] = off[:, 1, 1] = 0.5
    told = [Faithfulness(curves(a), curves(0.2), curves(0.1)) for a in (0.5, 0.2, 0.5)]
    found = iter(
        SimpleNamespace(numbers=[1, 4], maps=maps, faithfulness=how)
        for maps, how in zip((on, off, on), told, strict=True)
    )
    monkeypatch.setattr(proof, "explain_video", lambda *_: next(found))
    late = opacity_of(6)
    late[[0, 2, 3, 5]] = 0  # the model saw frames 1 and 4
    videos = [(Path("a"), late), (Path("b"), late), (Path("c"), np.zeros_like(late))]
    proved = prove(model, videos, "rollout")
    assert proved.place.energy == pytest.approx((1 + 0 + 0) / 3)
    assert proved.place.energy_chance == pytest.approx((1 / 4 + 1 / 4 + 0) / 3)
    assert proved.place.pointing == pytest.approx((1 + 0) / 2)  # of those with an object
    assert proved.place.pointing_chance == pytest.approx(1 / 4)
    scores = (proved.score, proved.score_random, proved.score_centre)
    assert scores == pytest.approx((0.4, 0.2, 0.1))
    assert proved.faithful == pytest.approx(2 / 3)


def curves(score: float) -> Curves:
    return Curves(deletion=[0.0, 0.0], insertion=[score, score])
