"""HowTo100M: long videos, and test clips that don't overlap."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from dataset_layouts import write_howto100m

from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.utils.errors import AnnotationError


def test_real_layout(tmp_path: Path) -> None:
    write_howto100m(tmp_path)
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(tmp_path), str(tmp_path / "videos")
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 40]
    cfg.MODEL.NUM_CLASSES, cfg.DATA.TEST_CLIP_SAMPLING = 1059, "tiled"
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 4, 1
    train, test = (build_dataset("howto100m", cfg, mode) for mode in ("train", "test"))
    assert [r.label for r in train.records] == [i * 131 for i in range(8)]
    assert train[0][0].shape == (3, 8, 32, 32)
    assert test[0][0].shape == (4, 3, 8, 32, 32)
    # 8x32 spans 51.2 frames at 6 frames/s: 4 clips fit in the 240 frames of 40 s.
    clips = [test.sampler.place(240, 6.0, view) for view in test.views.clips]
    for before, after in itertools.pairwise(clips):
        assert before.start + before.span <= after.start + 1e-6


def test_labels_count_to_1058(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 1058\nb.mp4 1059\n")
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES = str(tmp_path), 1059
    with pytest.raises(AnnotationError, match=r"train.csv, line 2"):
        build_dataset("HowTo100M", cfg, "train")
