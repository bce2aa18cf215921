"""Something-Something V2: both namings, all kinds of media, frame lists, and what can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_layouts import shipped_names, write_ssv2_frames, write_ssv2_webm
from fvcore.common.config import CfgNode

from timesformer.clips.sampling import SegmentSampler
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.catalogue.ssv2 import MIRRORED
from timesformer.datasets.lists.records import Images, Record
from timesformer.utils.errors import AnnotationError, ConfigError


def make_cfg(data: Path, prefix: Path | str = "", classes: int = 174) -> CfgNode:
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(data), str(prefix)
    cfg.MODEL.NUM_CLASSES, cfg.TEST.NUM_ENSEMBLE_VIEWS = classes, 1
    cfg.DATA.RANDOM_FLIP, cfg.DATA.NUM_FRAMES = False, 4
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 40]
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    return cfg


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Annotations of two classes and files that only exist."""
    save(tmp_path / "labels.json", {"Turning something": "1", "Showing a [sic": "0"})
    entries = [{"id": "7", "template": "Turning [something]"}, {"id": "8", "template": "Showing a"}]
    entries[1]["template"] = "Turning [something]"
    save(tmp_path / "train.json", entries)
    save(tmp_path / "validation.json", entries[:1])
    (tmp_path / "8.webm").touch()
    return tmp_path


def save(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def test_webm_as_downloaded(tmp_path: Path) -> None:
    write_ssv2_webm(tmp_path)
    cfg = make_cfg(tmp_path / "lists", tmp_path / "videos")
    train = build_dataset("ssv2", cfg, "train")
    assert [Path(r.path).name for r in train.records] == [f"{i}.webm" for i in range(8)]
    assert [r.label for r in train.records] == [i * 7 for i in range(8)]
    assert train.class_names == tuple(shipped_names("ssv2"))
    assert train.sampler == SegmentSampler(4)
    assert train[3][0].shape == (3, 4, 32, 32)
    for mode in ("val", "test"):  # as papers do
        dataset = build_dataset("ssv2", cfg, mode)
        assert [r.label for r in dataset.records] == [56, 63, 70]
        assert dataset.sampler == SegmentSampler(4)


@pytest.mark.parametrize("lists", [False, True])
def test_extracted_frames(tmp_path: Path, lists: bool) -> None:
    write_ssv2_frames(tmp_path, lists)
    cfg = make_cfg(tmp_path, tmp_path / "frames")
    train, test = (build_dataset("ssv2", cfg, mode) for mode in ("train", "test"))
    assert [r.path for r in train.records] == [str(tmp_path / "frames" / str(i)) for i in range(8)]
    assert [r.label for r in train.records] == [i * 7 for i in range(8)]
    assert [r.label for r in test.records] == [56, 63, 70]
    assert len(train.class_names) == (0 if lists else 174)
    assert test[0][0].shape == (3, 3, 4, 32, 32)


def test_class_names_and_mp4(two_classes: Path) -> None:
    (two_classes / "8.webm").rename(two_classes / "8.mp4")
    train = build_dataset("ssv2", make_cfg(two_classes, classes=2), "train")
    assert train.class_names == ("Showing a [sic", "Turning something")  # in the order of ids
    assert [Path(r.path).name for r in train.records] == ["7.mp4", "8.mp4"]
    cfg = make_cfg(two_classes, classes=2)
    cfg.DATA.CLASS_NAMES = str(two_classes / "names.txt")
    (two_classes / "names.txt").write_text("a\nb\n")
    assert build_dataset("ssv2", cfg, "train").class_names == ("a", "b")


def test_the_flip_swaps_left_and_right() -> None:
    names = shipped_names("ssv2")
    swap = str.maketrans({"L": "right", "R": "left"})
    for label, mirrored in MIRRORED.items():
        tokens = names[label].replace("left", "L").replace("right", "R")
        assert tokens.translate(swap) == names[mirrored]
    assert len(MIRRORED) == 6


def test_flip_and_views_are_checked(tmp_path: Path, two_classes: Path) -> None:
    cfg = make_cfg(two_classes, classes=2)
    assert not build_dataset("ssv2", cfg, "train").flip_labels
    cfg.DATA.RANDOM_FLIP = True
    with pytest.raises(ConfigError, match=r"DATA.RANDOM_FLIP .*174"):
        build_dataset("ssv2", cfg, "train")
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    with pytest.raises(ConfigError, match=r"TEST.NUM_ENSEMBLE_VIEWS 2: .*set it to 1"):
        build_dataset("ssv2", cfg, "train")
    full = tmp_path / "full"
    write_ssv2_frames(full)
    cfg = make_cfg(full, full / "frames")
    cfg.DATA.RANDOM_FLIP = True
    assert build_dataset("ssv2", cfg, "train").flip_labels == MIRRORED


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.json", "[{},\n]", r"train.json, line 2: not JSON"),
        ("train.json", "{}", r"train.json: must be a list"),
        ("train.json", "[]", r"train.json: must be a list of at least one"),
        ("train.json", "[1]", r"train.json, entry 1: must be an object"),
        ("train.json", '[{"template": "Turning something"}]', r"entry 1: there is no 'id'"),
        ("train.json", '[{"id": "7"}]', r"entry 1: there is no 'template'"),
        ("train.json", '[{"id": "7", "template": 3}]', r"entry 1: 'template' must be text"),
        ("train.json", '[{"id": "7", "template": "Oh"}]', r"entry 1: there is no class 'Oh'"),
        *(
            (
                "train.json",
                json.dumps([{"id": i, "template": "Turning something"}]),
                "entry 1: 'id'",
            )
            for i in ("../7", "/7", "..", "a\\b", "", "a\0b", None, True)
        ),
        (
            "train.json",
            json.dumps([{"id": "8", "template": "Turning something"}] * 2),
            r"entry 2: the id '8' came before",
        ),
        ("labels.json", "[]", r"labels.json: must be an object"),
        ("labels.json", '{"a": "x", "b": "0"}', r"labels.json, entry 1: 'x' is not the id"),
        ("labels.json", '{"a": "0", "b": "2"}', r"labels.json: the ids must be 0 to 1"),
        ("labels.json", "[" * 100_000, r"labels.json"),
    ],
)
def test_bad_json_names_file_and_entry(
    two_classes: Path, file: str, text: str, message: str
) -> None:
    (two_classes / file).write_text(text)
    with pytest.raises(AnnotationError, match=message):
        build_dataset("ssv2", make_cfg(two_classes, classes=2), "train")


def test_what_is_missing_is_named(two_classes: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL.NUM_CLASSES is 3, .*labels.json has 2"):
        build_dataset("ssv2", make_cfg(two_classes, classes=3), "train")
    (two_classes / "8.webm").unlink()
    with pytest.raises(AnnotationError, match=r"neither 7.webm nor the folder 7/.*PATH_PREFIX"):
        build_dataset("ssv2", make_cfg(two_classes, classes=2), "train")
    (two_classes / "validation.json").unlink()
    with pytest.raises(AnnotationError, match=r"validation.json: not there, though labels.json is"):
        build_dataset("ssv2", make_cfg(two_classes, classes=2), "val")
    with pytest.raises(AnnotationError, match=r"/nowhere: DATA.PATH_TO_DATA_DIR must have"):
        build_dataset("ssv2", make_cfg(Path("/nowhere")), "val")


@pytest.mark.parametrize("folder", ["", "labels"])
def test_answers_of_the_test_split(two_classes: Path, folder: str) -> None:
    """They are read where they are asked for alone: papers test on the validation split."""
    lists = two_classes / folder
    lists.mkdir(exist_ok=True)
    (two_classes / "7.webm").touch()
    for name in ("labels.json", "validation.json"):
        (two_classes / name).rename(lists / name)
    cfg = make_cfg(two_classes, classes=2)
    with pytest.raises(AnnotationError, match=r"test-answers.csv: .* TEST.DATASET ssv2, which"):
        build_dataset("ssv2test", cfg, "test")
    (lists / "test-answers.csv").write_text("7;Turning something\r\n\n8;Showing a [sic\r\n")
    test = build_dataset("ssv2test", cfg, "test")
    assert [(Path(r.path).name, r.label) for r in test.records] == [("7.webm", 1), ("8.webm", 0)]
    assert test.records.where(1) == f"{lists}/test-answers.csv, line 3"
    assert test.class_names == ("Showing a [sic", "Turning something")
    for dataset, mode in (("ssv2", "test"), ("ssv2test", "val")):
        assert [Path(r.path).name for r in build_dataset(dataset, cfg, mode).records] == ["7.webm"]
    (lists / "labels.json").unlink()
    with pytest.raises(AnnotationError, match=r"labels.json: not there, though test-answers"):
        build_dataset("ssv2test", cfg, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7,Turning something\n", r"line 1: must be `id;class`, not '7,Turning something'"),
        ("7;Turning something\n../8;Showing a [sic", r"line 2: must be `id;class`"),
        ("\u0667;Turning something\n", r"line 1: must be `id;class`"),
        ("7;Turning\n", r"line 1: there is no class 'Turning'"),
        ("7;Turning something\n7;Turning something\n", r"line 2: the id '7' came before"),
        ("7\n", r"line 1: there is no class ''"),
        ("\n", r"no videos"),
    ],
)
def test_bad_answers_name_the_line(two_classes: Path, text: str, message: str) -> None:
    (two_classes / "test-answers.csv").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        build_dataset("ssv2test", make_cfg(two_classes, classes=2), "test")


def test_keys_without_effect_are_told(two_classes: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = make_cfg(two_classes, classes=2)
    (two_classes / "7.webm").touch()
    build_dataset("ssv2", cfg, "train")
    assert "no effect" not in caplog.text
    cfg.DATA.SAMPLING_RATE, cfg.DATA.TARGET_FPS = 8, 12.5
    for mode in ("train", "val"):
        build_dataset("ssv2", cfg, mode)
    told = [r.getMessage() for r in caplog.records if "no effect" in r.getMessage()]
    assert [line.split(" has")[0] for line in told] == [
        "DATA.SAMPLING_RATE 8",
        "DATA.TARGET_FPS 12.5",
    ]


HEADER = "original_vido_id video_id frame_id path labels\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 0 0 7/1.jpg 1\n", r"train.csv, line 1: must be `original_vido_id"),
        (HEADER + "7 0 0 7/1.jpg\n", r"train.csv, line 2: must have 5 columns"),
        (HEADER + "\n7 0 0 7/1.jpg 2\n", r"train.csv, line 3: the label must be .* 0 to 1"),
        (HEADER + '7 0 0 7/1.jpg ""\n', r"train.csv, line 2: .*need labels.json"),
        (HEADER + "7 0 0 1.jpg 0\n", r"train.csv, line 2: '1.jpg' must be an image in a folder"),
        (HEADER + "7 0 0 ../7/1.jpg 0\n", r"train.csv, line 2"),
        (HEADER + "7 0 0 7/1.jpg 0\n8 1 0 8/1.jpg 0\n7 0 1 7/2.jpg 0\n", r"line 4: other rows"),
        (HEADER + "7 0 0 \0/1.jpg 0\n", r"train.csv, line 2"),
        (HEADER + "7 0 0 \udcff/1.jpg 0\n", r"train.csv, line 2: not UTF-8"),
        (HEADER, r"train.csv: .*no videos"),
    ],
)
def test_bad_frame_lists_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AnnotationError, match=message):
        build_dataset("ssv2", make_cfg(tmp_path, classes=2), "train")


@pytest.mark.parametrize("folder", ["", "labels"])
def test_labels_of_json_and_images_of_a_frame_list(
    two_classes: Path, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    """As PySlowFast has them: ids that the frame list leaves out are no videos."""
    caplog.set_level("INFO")
    lists = two_classes / folder
    lists.mkdir(exist_ok=True)
    for name in ("labels.json", "train.json"):
        (two_classes / name).rename(lists / name)
    rows = [f'{v} 0 {i} {v}/{v}_{i:06d}.jpg ""\n' for v in (8, 9) for i in range(2, 6)]
    (lists / "train.csv").write_text("path label\n8.webm 1\n")  # another list isn't read
    cfg = make_cfg(two_classes, classes=2)
    (two_classes / "7.webm").touch()
    assert len(build_dataset("ssv2", cfg, "train").records) == 2
    (lists / "train.csv").write_text(HEADER + "".join(rows))
    assert len(build_dataset("ssv2", cfg, "train").records) == 2  # files are there, no folders
    assert "train.csv isn't read: its folders of frames aren't below" in caplog.text
    (two_classes / "8").mkdir()
    train = build_dataset("ssv2", cfg, "train")
    assert list(train.records) == [
        Record(str(two_classes / "8"), 1, images=Images(2, 4, "8_000002.jpg"))
    ]
    assert train.records.where(0) == f"{lists}/train.csv, line 2"
    assert train.class_names == ("Showing a [sic", "Turning something")
    assert f"those of {lists}/train.csv: 1 videos of 2" in caplog.text
    (lists / "train.csv").write_text(HEADER + "".join(rows[4:]))
    with pytest.raises(AnnotationError, match=r"train.csv: none of its videos is in train.json"):
        build_dataset("ssv2", cfg, "train")


def test_a_missing_frame_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(HEADER + "7 0 0 7/1.jpg 1\n")
    with pytest.raises(AnnotationError, match=r"val.csv: can't be read"):
        build_dataset("ssv2", make_cfg(tmp_path, classes=2), "val")
