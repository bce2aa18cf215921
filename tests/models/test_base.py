"""What models know beside their weights: how frames become their input, their classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import small_cfg

import timesformer
from timesformer.clips.preprocessing import Preprocessing
from timesformer.datasets.build import build_preprocessing, build_video_split
from timesformer.datasets.decoder import load_clip
from timesformer.models.base import VideoModel
from timesformer.models.create import from_pretrained
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import ConfigError

KNOBS = {"img_size": 32, "num_frames": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}
SAID = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.4, 0.3], "channel_order": "BGR"}
FRAMES = torch.arange(4 * 48 * 64 * 3).remainder(251).to(torch.uint8).view(4, 48, 64, 3)


def small_model(**said):
    model = TimeSformer(num_classes=3, **KNOBS)
    model.preprocessing = SAID | said
    return model


def test_frames_become_what_a_test_feeds(synthetic_dir, tmp_path):
    """Bit for bit, frames and pixels, with what `preprocessing` says and nothing else."""
    cfg = small_cfg(
        synthetic_dir, tmp_path, DATA__REVERSE_INPUT_CHANNEL=True, TEST__NUM_ENSEMBLE_VIEWS=1,
        DATA__TEST_CROP_SIZE=48, DATA__SAMPLING_RATE=2,
    )  # fmt: skip
    model = TimeSformer(**KNOBS)
    model.preprocessing = build_preprocessing(cfg, "test").to_json()
    dataset = build_video_split(cfg, "test")
    views, _, index, _ = dataset[3]
    frames = load_clip(dataset.records[index].path, **model.sampling)
    assert torch.equal(model.transform(frames, num_crops=3), dataset.normalize(views))
    assert torch.equal(model.transform(frames), dataset.normalize(views)[1:2])


@pytest.mark.parametrize("name", ["kinetics", "ssv2"])
def test_what_a_config_says_of_clips(synthetic_dir, tmp_path, name):
    cfg = small_cfg(synthetic_dir, tmp_path, TRAIN__DATASET=name, DATA__TARGET_FPS=25.0)
    rate = {"sampling": "rate", "sampling_rate": cfg.DATA.SAMPLING_RATE, "target_fps": 25.0}
    rate["clip_sampling"] = "center"
    assert build_preprocessing(cfg, "train").to_json() == {
        "mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB", "num_frames": 4,
        "short_side": 64, "crop_size": 64, **(rate if name == "kinetics" else
        {"sampling": "segments"}),
        "num_clips": 1, "num_crops": 3, "ensemble": "sum", "multi_label": False,
    }  # fmt: skip


def test_frames_in_every_form_give_the_same():
    model = small_model()
    clip = model.transform(FRAMES)
    assert (clip.shape, clip.dtype) == ((1, 3, 4, 32, 32), torch.float32)
    array = FRAMES.numpy()
    images = [Image.fromarray(frame) for frame in array]
    for given in (array, list(array), images, [image.convert("RGBA") for image in images]):
        assert torch.equal(model.transform(given), clip)
    grey = model.transform([image.convert("L") for image in images])
    assert grey.shape == clip.shape
    assert model.transform(FRAMES, num_crops=3).shape == (3, 3, 4, 32, 32)
    with torch.no_grad():
        assert model.eval()(clip).shape == (1, 3)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (FRAMES[:3], "takes clips of 4 frames, not 3: .*num_frames=3"),
        (FRAMES.repeat(2, 1, 1, 1), "takes clips of 4 frames, not 8"),
        (FRAMES / 255, "uint8 pixels, 0 to 255, not torch.float32"),
        (FRAMES.permute(3, 0, 1, 2), r"not \(3, 4, 48, 64\); .*permute\(1, 2, 3, 0\)"),
        (FRAMES.permute(0, 3, 1, 2), r"not \(4, 3, 48, 64\); .*permute\(0, 2, 3, 1\)"),
        (FRAMES[None], r"are \(T, H, W, 3\), not \(1, 4"),
        ([], "there are no frames"),
        ([FRAMES[0], FRAMES[1, :40]], "of one size"),
        ("video.mp4", "not str"),
        (["a.jpg"] * 4, "a frame is an image"),
    ],
    ids=lambda value: "" if isinstance(value, torch.Tensor) else str(value)[:20],
)
def test_frames_that_are_something_else(frames, complaint):
    with pytest.raises(ValueError, match=complaint):
        small_model().transform(frames)


def test_what_is_not_known_is_said():
    model = TimeSformer(**KNOBS)
    with pytest.raises(ConfigError, match=r"set model\.preprocessing = \{'mean'"):
        model.transform(FRAMES)
    with pytest.raises(ConfigError, match=r"set\s+model\.preprocessing\['sampling_rate'\]"):
        _ = small_model().sampling
    with pytest.raises(ConfigError, match="preprocessing: std must be above 0"):
        small_model(std=[0, 1, 1]).transform(FRAMES)
    assert small_model(sampling_rate=5).sampling == {"num_frames": 4, "sampling_rate": 5}
    assert small_model(sampling="segments").sampling["sampling_rate"] is None
    with pytest.raises(ConfigError, match=r"clip_sampling must be one of legacy, .*not 'centre'"):
        _ = small_model(sampling_rate=5, clip_sampling="centre").sampling


def test_a_test_may_place_its_clips_elsewhere():
    said = Preprocessing(**SAID, sampling="rate", clip_sampling="center")
    assert Preprocessing.from_json(said.to_json()) == said
    assert not said.differences(replace(said, clip_sampling="legacy"))


@pytest.mark.parametrize("name", sorted(name for name, _ in MODEL_REGISTRY))
def test_every_registered_model_takes_frames_and_new_classes(name):
    with torch.device("meta"):
        model = timesformer.create_model(name, num_frames=8, num_classes=5)
    assert isinstance(model, VideoModel)
    model.preprocessing, model.class_names = SAID, tuple("abcde")
    frames = np.zeros((8, 120, 100, 3), dtype=np.uint8)
    assert model.transform(frames).shape == (1, 3, 8, 224, 224)
    model.reset_classifier(2, ("x", "y"))
    assert (model.architecture.num_classes, model.class_names) == (2, ("x", "y"))
    model.reset_classifier(5)
    assert (model.architecture.num_classes, model.class_names) == (5, ())
    with pytest.raises(ConfigError, match="1 class names for 2 classes"):
        model.reset_classifier(2, ["x"])


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        *((value, f"num_classes must be a whole number, not {value!r}") for value in ("3", None)),
        (2.5, r"num_classes must be a whole number, not 2\.5"),
        (-1, "num_classes must be at least 1, or 0 for no head, not -1"),
    ],
)
def test_what_is_no_number_of_classes_changes_nothing(classes, complaint, tmp_path):
    model = small_model()
    model.class_names = tuple("abc")
    with pytest.raises(ConfigError, match=f"reset_classifier: {complaint}"):
        model.reset_classifier(classes)
    model.save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).class_names == tuple("abc")


def test_new_classes_save_without_the_old_names(tmp_path):
    """The sequence of the README: a model with names, another head, a folder."""
    small = {key: value for key, value in KNOBS.items() if key != "num_frames"}
    model = timesformer.create_model("timesformer_divST_8x32_224_K400", **small)
    assert len(model.class_names) == 400
    model.reset_classifier(10)
    model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert (again.architecture.num_classes, again.class_names) == (10, ())
    assert again.preprocessing == model.preprocessing
    rate = {"num_frames": 8, "sampling_rate": 32, "target_fps": 30.0}
    assert again.sampling == rate | {"clip_sampling": "legacy"}
    model.reset_classifier(10)  # an equal count: the old names would fit, and be wrong
    model.class_names = tuple("abcdefghij")
    model.reset_classifier(10)
    model.save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).class_names == ()


def test_other_sizes_change_the_clip(tmp_path):
    model = small_model(num_frames=4, crop_size=32, short_side=40, sampling="segments")
    model.save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).preprocessing == model.preprocessing
    other = from_pretrained(tmp_path, num_frames=2, img_size=48)
    assert other.transform(FRAMES[:2]).shape == (1, 3, 2, 48, 48)
