"""Features are what the model's own head reads, of the right video, whatever the order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import small_cfg
from torch import nn

from timesformer import create_model
from timesformer.datasets.build import build_preprocessing, build_video_split
from timesformer.datasets.decoder import load_clip
from timesformer.datasets.lists.records import Records
from timesformer.embed.features import embed_videos, in_common
from timesformer.inference.load import complete
from timesformer.models.base import VideoModel
from timesformer.models.build import build_model
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.vit import TIMESFORMERS
from timesformer.utils.errors import ConfigError, UserError

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5, "img_size": 32}

OTHER_SIZES = TIMESFORMERS - {"vit_tiny_patch16_224"} | {"swin3d_s", "swin3d_b", "mvit_v1_b"}
MODELS = sorted({name for name, _ in MODEL_REGISTRY} - OTHER_SIZES)


@pytest.fixture(scope="module")
def videos(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    cfg = small_cfg(synthetic_dir, tmp_path_factory.mktemp("run"))
    model = build_model(cfg).eval()
    model.preprocessing = build_preprocessing(cfg, "test").to_json()
    return model, build_video_split(cfg, "test").records


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        *(("vit_base_patch16_224", SMALL | {"attention_type": scheme}) for scheme in (
            "divided_space_time", "space_only", "factorised_dot_product",
        )),
        ("vtn", SMALL | {"num_frames": 4}),
        ("r2plus1d_18", {"num_classes": 5}),
        ("slow_r50", {"num_classes": 5, "img_size": 32}),
    ],
)  # fmt: skip
def test_features_are_what_the_head_reads(name: str, knobs: dict) -> None:
    model = create_model(name, **knobs).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        features = model.clip_features(clips)
        assert torch.equal(model.get_classifier()(features), model(clips))
    assert not model.get_classifier()._forward_pre_hooks


def test_a_head_that_is_applied_at_several_places() -> None:
    """S3D's is a convolution whose outputs are averaged: so are its inputs."""
    model = create_model("s3d", num_classes=5).eval()
    clips = torch.randn(2, 3, 32, 32, 32)
    with torch.no_grad():
        assert model.avgpool(model.features(clips)).shape[2:] == (3, 1, 1)
        features = model.clip_features(clips)
        assert features.shape == (2, 1024)
        logits = model.get_classifier()(features[..., None, None, None]).flatten(1)
        torch.testing.assert_close(logits, model(clips))


def test_places_of_a_linear_head_are_before_the_features() -> None:
    class Dense(VideoModel):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def get_classifier(self) -> nn.Module:
            return self.head

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.permute(0, 2, 3, 4, 1)).mean((1, 2, 3))

    model, clips = Dense(), torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(model.clip_features(clips), clips.mean((2, 3, 4)))
    torch.testing.assert_close(model.head(model.clip_features(clips)), model(clips))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_features(name: str) -> None:
    with torch.device("meta"):
        model: VideoModel = create_model(name, num_classes=5).eval()  # type: ignore[assignment]
        clips = torch.zeros(2, 3, 8, 64, 64)
        found = model.clip_features(clips)
        model.reset_classifier(0)
        assert model(clips).flatten(1).shape == model.clip_features(clips).shape == found.shape


def test_a_row_is_of_its_video(videos: tuple) -> None:
    """Read here by another way, one by one."""
    model, records = videos
    found = embed_videos(model, records.take([3, 0, 7]), batch_size=2)
    for row, i in zip(found.features, (3, 0, 7), strict=True):
        frames = load_clip(records[i].path, **model.sampling)
        with torch.no_grad():
            expected = model.clip_features(model.transform(frames))[0]
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert found.index.tolist() == [0, 1, 2]
    assert found.thumbnails[0][:2] == b"\xff\xd8"


def test_order_batches_and_workers_dont_matter(videos: tuple) -> None:
    model, records = videos
    model.train()  # as a fresh model is; DropPath mustn't play a part
    one = embed_videos(model, records)
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    other = embed_videos(model, records.take(order), batch_size=5, workers=2)
    assert model.training
    np.testing.assert_allclose(other.features, one.features[order], atol=1e-6)
    assert other.thumbnails == [one.thumbnails[i] for i in order]
    assert len(np.unique(one.features.round(6), axis=0)) == 12


def test_a_broken_video_moves_no_row(videos: tuple, tmp_path: Path) -> None:
    model, records = videos
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    several = Records("list")
    for i, path in enumerate([records[0].path, str(tmp_path / "broken.mp4"), records[1].path]):
        several.append(path, i, line=i + 1)
    found = embed_videos(model, several)
    assert found.index.tolist() == [0, 2]
    (problem,) = found.failed
    assert (problem.record, problem.where) == (1, "list, line 2")
    expected = embed_videos(model, records.take([0, 1])).features
    np.testing.assert_allclose(found.features, expected, atol=1e-6)
    both, kept = in_common({"a": found, "b": embed_videos(model, several.take([0, 0, 2]))})
    assert kept.tolist() == [0, 2]
    np.testing.assert_allclose(both["b"].features[0], expected[0], atol=1e-6)
    assert not len(embed_videos(model, several.take([1])).index)


def test_features_that_arent_finite(videos: tuple) -> None:
    model, records = videos
    broken = create_model("vit_base_patch16_224", **SMALL, num_frames=4)
    broken.preprocessing = model.preprocessing | {"crop_size": 32, "short_side": 32}
    nn.init.constant_(broken.model.norm.bias, float("nan"))
    with pytest.raises(UserError, match="aren't finite"):
        embed_videos(broken, records.take([0]))
    broken.preprocessing = {}
    with pytest.raises(ConfigError, match="normalised"):
        embed_videos(broken, records.take([0]))


def models_that_say(*said: dict) -> list[VideoModel]:
    found = []
    for more in said:
        scheme = "space_only" if not more else "divided_space_time"
        with torch.device("meta"):
            model = create_model("vit_base_patch16_224", **SMALL, attention_type=scheme)
        model.preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"} | more
        found.append(model)
    return found


def test_an_image_model_takes_the_frames_of_the_first_that_says_them() -> None:
    rate = {"num_frames": 4, "sampling": "rate", "sampling_rate": 16, "target_fps": 30.0}
    models = models_that_say({}, rate, {"num_frames": 3, "sampling": "segments"})
    added = complete(models)
    assert models[0].sampling == models[1].sampling
    assert "sampling_rate 16" in added[0]
    assert added[1:] == [[], []]
    assert models[2].sampling == {"num_frames": 3, "sampling_rate": None}


def test_weights_that_say_nothing_of_time() -> None:
    models = models_that_say({})
    complete(models)
    assert models[0].sampling == {"num_frames": 8, "sampling_rate": None}
    models = models_that_say({"num_frames": 5}, {})
    complete(models, sampling_rate=32)
    assert [m.sampling["sampling_rate"] for m in models] == [32, 32]
    assert [m.sampling["num_frames"] for m in models] == [5, 8]
