"""Items of a data set, from files with known pixels to normalised clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from video_fixtures import numbered_frames, write_video

from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.kinetics import Kinetics
from timesformer.datasets.transform import TrainTransform
from timesformer.utils.errors import AnnotationError, ConfigError, VideoError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists")
    for name in ("a.mp4", "b c.mp4"):
        write_video(path / name, numbered_frames(50))
    rows = f"{path}/a.mp4 0\n{path}/b c.mp4 2\n"
    for split in ("train", "val"):
        (path / f"{split}.csv").write_text(rows)
    (path / "test.csv").write_text(rows + f"{path}/gone.mp4 1\n")
    return path


@pytest.fixture
def cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 3
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE = 4, 4
    cfg.DATA.MEAN, cfg.DATA.STD = [0.0, 0.0, 0.0], [1 / 255] * 3
    cfg.DATA.TRAIN_JITTER_SCALES = [48, 60]
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    return cfg


def test_train_items_are_a_function_of_seed_epoch_and_index(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "train")
    clip, label, index, meta = dataset[(1, 3)]
    assert clip.shape == (3, 4, 32, 32)
    assert (label, index, meta["view"].item()) == (2, 1, 0)
    assert dataset[(1, 3)][0].equal(clip)
    assert dataset[0][0].equal(dataset[(0, 0)][0])
    cfg.RNG_SEED = 1
    others = [dataset[(1, 4)], dataset[(0, 3)], build_dataset("kinetics", cfg, "train")[(1, 3)]]
    assert not any(other[0].equal(clip) for other in others)


def test_validation_is_the_centre_view(cfg: CfgNode) -> None:
    clip, label, _, _ = build_dataset("kinetics", cfg, "val")[0]
    # 4x4 spans 16 of 50 frames; the middle of the remaining 34 is 17. Short side 48: no resizing.
    expected = torch.from_numpy(numbered_frames(50)[[17, 22, 27, 32], 8:40, 16:48]).float()
    assert label == 0
    assert clip.shape == (3, 4, 32, 32)
    assert (clip - expected.permute(3, 0, 1, 2)).abs().max() < 1e-3


def test_a_test_item_is_all_views_of_a_video(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "test")
    assert (len(dataset), dataset.num_views, dataset.class_names) == (3, 6, ())
    clips, label, index, meta = dataset[1]
    assert clips.shape == (6, 3, 4, 32, 32)
    assert (label, index) == (2, 1)
    assert meta["view"].tolist() == list(range(6))
    frames, columns = clips[:, 0, :, 16, 16].round(), clips[:, 2, 0, 0, 0]
    assert frames.tolist() == [[0, 5, 10, 15]] * 3 + [[17, 22, 27, 32]] * 3
    # 48x64 becomes 32x42: crops at columns 0, 5 and 10, 1.5 source pixels a column.
    assert columns.tolist() == pytest.approx([0.26, 7.88, 15.5] * 2, abs=0.05)


def test_options_reach_the_pixels(cfg: CfgNode) -> None:
    plain = build_dataset("kinetics", cfg, "val")[0][0]
    cfg.DATA.REVERSE_INPUT_CHANNEL = True
    assert build_dataset("kinetics", cfg, "val")[0][0].equal(plain.flip(0))
    cfg.DATA.TEST_CLIP_SAMPLING = "uniform"
    views = build_dataset("kinetics", cfg, "test")[0][0]
    assert views[3, 2, 0, 0, 0].round() == 34  # red is last now; the last view ends the video
    cfg.DATA.RANDOM_FLIP, cfg.DATA.INV_UNIFORM_SAMPLE = False, True
    transform = build_dataset("kinetics", cfg, "train").transform
    assert isinstance(transform, TrainTransform)
    assert (transform.flip, transform.inverse, transform.jitter) == (False, True, (48, 60))
    cfg.DATA.PATH_PREFIX, cfg.DATA.CLASS_NAMES = "/videos", "kinetics400"
    with pytest.raises(ConfigError, match="400 names"):
        Kinetics(cfg, "train")


def test_a_missing_video_is_an_error_and_a_value_for_the_loader(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "test")
    with pytest.raises(VideoError, match=r"gone.mp4: no such file"):
        dataset[2]
    good, bad = dataset.__getitems__([0, 2])
    assert good[2] == 0
    assert isinstance(bad, VideoError)


def test_registry(cfg: CfgNode) -> None:
    for name in ("kinetics", "Kinetics", "KINETICS"):
        assert isinstance(build_dataset(name, cfg, "train"), Kinetics)
    with pytest.raises(ConfigError, match=r"TRAIN.DATASET 'kinetic' .*kinetics, synthetic"):
        build_dataset("kinetic", cfg, "val")
    with pytest.raises(ConfigError, match=r"TEST.DATASET 'x'"):
        build_dataset("x", cfg, "test")
    cfg.DATA.PATH_TO_DATA_DIR = "/nowhere"
    with pytest.raises(AnnotationError, match=r"/nowhere/val.csv: .*DATA.PATH_TO_DATA_DIR"):
        build_dataset("kinetics", cfg, "val")


def test_published_test_views(golden: Path, shared_videos: Path, tmp_path: Path) -> None:
    """Mean, std, first and last pixel of every normalised view of six real videos."""
    expected = np.load(golden / "multiview_tiny.npz")
    rows = zip(expected["videos"], expected["labels"], strict=True)
    (tmp_path / "test.csv").write_text("".join(f"{name} {label}\n" for name, label in rows))
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(tmp_path), str(shared_videos)
    cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TEST_CROP_SIZE = 4, 16, 64
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    dataset = build_dataset("kinetics", cfg, "test")
    clips = torch.cat([dataset[i][0] for i in range(len(dataset))]).double().flatten(1)
    stats = torch.stack([clips.mean(1), clips.std(1), clips[:, 0], clips[:, -1]], dim=1)
    assert np.abs(stats.numpy() - expected["clip_stats"]).max() < 1e-5
