"""Diving-48: versions, vocabulary, start and end frames, and what can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_layouts import shipped_names, write_diving48
from fvcore.common.config import CfgNode

from timesformer.clips.sampling import RateSampler
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.catalogue import diving48
from timesformer.datasets.lists.records import Record
from timesformer.utils.errors import AnnotationError, ConfigError

ENTRY = {"vid_name": "a_0", "label": 5, "start_frame": 2, "end_frame": 9}


def make_cfg(data: Path, **options: object) -> CfgNode:
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES = str(data), 48
    for key, value in options.items():
        setattr(cfg.DATA, key, value)
    return cfg


def save(path: Path, *entries: object) -> None:
    path.write_text(json.dumps(entries))


def test_real_layout(tmp_path: Path) -> None:
    write_diving48(tmp_path)
    cfg = make_cfg(
        tmp_path, NUM_FRAMES=4, TRAIN_CROP_SIZE=32, TEST_CROP_SIZE=32, TRAIN_JITTER_SCALES=[32, 40]
    )
    train = build_dataset("diving48", cfg, "train")
    assert [r.label for r in train.records] == [0, 6, 12, 18, 24, 30, 36, 42]
    assert train.records[1].path == str(tmp_path / "rgb" / "-train_00001.mp4")
    assert (train.records[1].start, train.records[1].end) == (0, None)
    assert isinstance(train.sampler, RateSampler)
    assert train.class_names[0] == "Back+15som+05Twis+FREE"
    assert len(train.class_names) == 48
    assert train[0][0].shape == (3, 4, 32, 32)
    val, test = (build_dataset("diving48", cfg, mode) for mode in ("val", "test"))
    assert list(val.records) == list(test.records)
    assert len(val) == 4


def test_segments_and_given_names(tmp_path: Path) -> None:
    save(tmp_path / "Diving48_V2_train.json", ENTRY)
    options = {"TRIM_TO_SEGMENT": True, "CLASS_NAMES": "diving48", "PATH_PREFIX": "/videos"}
    train = build_dataset("diving48", make_cfg(tmp_path, **options), "train")
    assert train.records[0] == Record("/videos/a_0.mp4", 5, 2, 9)
    assert train.class_names == tuple(shipped_names("diving48"))
    save(tmp_path / "Diving48_V2_train.json", {"vid_name": "a_0", "label": 5})
    assert len(build_dataset("diving48", make_cfg(tmp_path), "train")) == 1  # frames are optional
    with pytest.raises(AnnotationError, match=r"entry 1: there is no 'start_frame'"):
        build_dataset("diving48", make_cfg(tmp_path, **options), "train")


def test_versions_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(diving48.logger, "info", lambda text, *args: lines.append(text % args))
    for split in ("train", "test"):
        save(tmp_path / f"Diving48_{split}.json", ENTRY)
    assert build_dataset("diving48", make_cfg(tmp_path), "test").records[0].label == 5
    save(tmp_path / "Diving48_V2_train.json", ENTRY | {"label": 6})
    assert not lines
    assert build_dataset("diving48", make_cfg(tmp_path), "train").records[0].label == 6
    assert "V2 is used" in lines[0]
    with pytest.raises(AnnotationError, match=r"Diving48_V2_test.json: there is no"):
        build_dataset("diving48", make_cfg(tmp_path), "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 48}, r"train.json, entry 1: 'label' must be a whole number from 0 to 47"),
        ({"label": -1}, r"entry 1: 'label'"),
        ({"label": True}, r"entry 1: 'label'"),
        ({"label": "5"}, r"entry 1: 'label'"),
        ({"start_frame": -1}, r"entry 1: 'start_frame'"),
        ({"end_frame": 2}, r"entry 1: 'end_frame' must be a whole number from 3"),
        ({"end_frame": 2**40}, r"entry 1: 'end_frame'"),
        ({"vid_name": "../a"}, r"entry 1: 'vid_name' must be a plain name"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save(tmp_path / "Diving48_V2_train.json", ENTRY | change)
    with pytest.raises(AnnotationError, match=message):
        build_dataset("diving48", make_cfg(tmp_path, TRIM_TO_SEGMENT=True), "train")


def test_bad_vocabulary_and_missing_files(tmp_path: Path) -> None:
    save(tmp_path / "Diving48_V2_train.json", ENTRY)
    save(tmp_path / "Diving48_vocab.json", ["Back", "FREE"])
    with pytest.raises(ConfigError, match=r"MODEL.NUM_CLASSES is 48, .*vocab.json has 1 classes"):
        build_dataset("diving48", make_cfg(tmp_path), "train")
    save(tmp_path / "Diving48_vocab.json", ["Back"], "FREE")
    with pytest.raises(AnnotationError, match=r"vocab.json, entry 2"):
        build_dataset("diving48", make_cfg(tmp_path), "train")
    with pytest.raises(AnnotationError, match=r"/nowhere: .*Diving48_V2_train.json"):
        build_dataset("diving48", make_cfg(Path("/nowhere")), "train")
