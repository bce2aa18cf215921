"""`timesformer check-data`: everything that is wrong with a data set, and lists without it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from dataset_layouts import (
    write_kinetics_strings,
    write_multi_label,
    write_pictures,
    write_ssv2_frames,
    write_ssv2_webm,
    write_tiny,
)
from PIL import Image
from small_run import ROOT

from timesformer.commands import check_data
from timesformer.commands.check_data import main
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.lists.records import Images, Record
from timesformer.prepare.check import shared, size_warnings
from timesformer.prepare.inspect import SplitReport, VideoReport
from timesformer.prepare.savings import Savings
from timesformer.utils.errors import AnnotationError, UserError

KINETICS = ROOT / "configs" / "Kinetics" / "TimeSformer_divST_8x32_224.yaml"
SSV2 = ROOT / "configs" / "SSv2" / "TimeSformer_divST_8_224.yaml"
Split = tuple[list[str], list[str]]


def check(output: Path, options: dict[str, object], *words: str, recipe: Path = KINETICS) -> int:
    """Run the command; returns its exit status."""
    pairs = [str("" if word == "''" else word) for pair in options.items() for word in pair]
    try:
        fixed = ["--cfg", str(recipe), "--output", str(output), "--workers", "0", "--sample", "0"]
        main([*fixed, *words, *pairs])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def read_problems(output: Path) -> list[dict[str, str]]:
    with (output / "problems.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table(text: str) -> dict[str, str]:
    """The first table: the row of each split."""
    rows = (line.split() for line in text.split("\n\n")[0].splitlines()[1:])
    return {name: " ".join(cells) for name, *cells in rows}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """One of each fault, with its line in a list."""
    root = tmp_path_factory.mktemp("faulty")
    videos = root / "videos"
    for i in range(6):
        write_tiny(videos / f"t{i}.mp4", 60, seed=i)
    for i in range(2):
        write_tiny(videos / f"v{i}.mp4", 60, 25, seed=10 + i)
    (videos / "text.mp4").write_text("no video")
    (videos / "leak.mp4").symlink_to("t5.mp4")
    shutil.copy(videos / "t3.mp4", videos / "copy.mp4")
    (videos / "out.mp4").symlink_to(write_tiny(root / "elsewhere" / "x.mp4", 60, seed=20))
    content = bytearray((videos / "v1.mp4").read_bytes())
    media = content.find(b"mdat")
    size = int.from_bytes(content[media - 4 : media], "big")
    content[media + size // 2 : media + size * 3 // 4] = bytes(size * 3 // 4 - size // 2)
    (videos / "v1.mp4").write_bytes(content)
    train = [f"t{i}.mp4 {i % 3}" for i in range(6)]
    train += ["gone.mp4 0", "text.mp4 1", "out.mp4 1", "copy.mp4 2"]
    for name, rows in {"train": train, "val": ["v0.mp4 0", "v1.mp4 1", "leak.mp4 2"]}.items():
        (root / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return {
        "DATA.PATH_TO_DATA_DIR": root,
        "DATA.PATH_PREFIX": videos,
        "DATA.CLASS_NAMES": "",
        "MODEL.NUM_CLASSES": 4,
    }


def test_every_fault_is_found(
    faulty: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, faulty, "--splits", "train", "val") == 1
    text = capsys.readouterr().out
    found = {(row["split"], Path(row["path"]).name, row["kind"]) for row in read_problems(tmp_path)}
    assert found == {
        ("train", "gone.mp4", "missing"),
        ("train", "text.mp4", "broken"),
        ("train", "out.mp4", "link out"),
        ("train", "copy.mp4", "twice"),
        ("val", "leak.mp4", "leak"),
    }
    problems = {Path(row["path"]).name: row for row in read_problems(tmp_path)}
    assert problems["gone.mp4"]["where"].endswith("train.csv, line 7")
    assert "line 4) with another label" in problems["copy.mp4"]["problem"]
    assert "train.csv, line 6" in problems["leak.mp4"]["problem"]
    assert problems["out.mp4"]["problem"].endswith("x.mp4")
    assert table(text) == {
        "train": "10 3 / 4 1 1 1 0 1",
        "val": "3 3 / 4 0 0 0 1 0",
    }
    assert "- train: classes without a video, 1: 3" in text
    assert "- train: 8 of 8 videos are shorter than a clip of 8.53 s (DATA.NUM_FRAMES" in text
    with Image.open(tmp_path / "data.png") as picture:
        assert min(picture.size) > 500


def test_what_copies_would_save_is_measured_on_some_files(
    faulty: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    assert check(tmp_path, faulty, "--splits", "train", "--sample", "3") == 1
    text = capsys.readouterr().out
    assert "measured on 3 of 8 videos" in text
    assert "as they are" in text
    assert "prepared  " in text
    fast = Savings(3, 7, clip_ms=50.0, copy_ms=10.0, disk=1e9, copy_disk=5e8, hours=2.0)
    monkeypatch.setattr(check_data, "measure", lambda *_: fast)
    check(tmp_path, faulty, "--splits", "train", "--sample", "3")
    text = capsys.readouterr().out
    assert "They load 5.0 times as fast, and making them takes 2 hours of one core" in text
    made = f"timesformer prepare-data --cfg {KINETICS} --output PREPARED DATA.PATH_TO_DATA_DIR"
    assert made in text
    monkeypatch.setattr(check_data, "measure", lambda *_: fast._replace(copy_ms=45.0))
    check(tmp_path, faulty, "--splits", "train", "--sample", "3")
    assert "They load 1.11 times as fast: it isn't worth while." in capsys.readouterr().out


def test_clean_lists_have_all_that_can_be_read(faulty: dict[str, object], tmp_path: Path) -> None:
    check(tmp_path, faulty, "--splits", "train", "val", "--decode")
    broken = [row["path"] for row in read_problems(tmp_path) if row["kind"] == "broken"]
    assert [Path(path).name for path in broken] == ["text.mp4", "v1.mp4"]
    cfg = get_cfg()
    cfg.merge_from_list([str(word) for pair in faulty.items() for word in pair])
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)
    names = {
        split: [(Path(r.path).name, r.label) for r in build_dataset("kinetics", cfg, split).records]
        for split in ("train", "val")
    }
    readable = [(f"t{i}.mp4", i % 3) for i in range(6)]
    assert names["train"] == [*readable, ("out.mp4", 1), ("copy.mp4", 2)]
    assert names["val"] == [("v0.mp4", 0), ("leak.mp4", 2)]


@pytest.mark.parametrize("write", [write_kinetics_strings, write_multi_label])
def test_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str], write) -> None:
    (tmp_path / "data").mkdir()
    options, output = write(tmp_path / "data"), tmp_path / "report"
    for video in (tmp_path / "data").rglob("*.mp4"):  # no two alike
        write_tiny(video, 40, seed=sum(map(ord, str(video))))
    assert check(output, options, "--decode") == 0
    assert "no broken files" in capsys.readouterr().out
    assert read_problems(output) == []
    options["DATA.PATH_TO_DATA_DIR"] = output
    assert check(tmp_path / "again", options) == 0
    for split in ("train", "val", "test"):
        assert (output / f"{split}.csv").read_text() == (
            tmp_path / "again" / f"{split}.csv"
        ).read_text()


def test_too_few_videos_for_a_batch(
    faulty: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = faulty | {"NUM_GPUS": 0, "TRAIN.BATCH_SIZE": 16, "GLOBAL_BATCH_SIZE": 64}
    check(tmp_path, few, "--splits", "train")
    said = (
        "- train: the training set has 10 videos, fewer than the 16 of one batch: set TRAIN.BATCH"
    )
    assert f"{said}_SIZE 8 (" in capsys.readouterr().out
    check(tmp_path, few | {"TRAIN.ENABLE": False}, "--splits", "train")
    assert "of one batch" not in capsys.readouterr().out


def test_a_share_of_the_videos_is_said_and_all_are_checked(
    faulty: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of a share would be shared out once more where it is trained on."""
    few = faulty | {"NUM_GPUS": 0, "TRAIN.BATCH_SIZE": 8, "GLOBAL_BATCH_SIZE": 64}
    check(tmp_path, few | {"DATA.FRACTION": 0.5}, "--splits", "train")
    said = capsys.readouterr().out
    assert "- train: a run takes 5 of the 10 videos (DATA.FRACTION 0.5)" in said
    assert "the training set has 5 videos, fewer than the 8 of one batch" in said
    share = (tmp_path / "train.csv").read_text()
    check(tmp_path, few, "--splits", "train")
    assert (tmp_path / "train.csv").read_text() == share
    assert "DATA.FRACTION" not in capsys.readouterr().out


def test_a_list_that_is_missing_is_a_problem(faulty: dict[str, object], tmp_path: Path) -> None:
    assert check(tmp_path, faulty) == 1
    (row,) = (row for row in read_problems(tmp_path) if row["kind"] == "list")
    assert row["split"] == "test"
    assert "test.csv" in row["problem"]
    with pytest.raises(AnnotationError, match=r"test.csv"):
        check(tmp_path, faulty, "--splits", "test")
    with pytest.raises(UserError, match="--workers"):
        check(tmp_path, faulty, "--workers", "-2")


def test_other_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Validation videos stand in for a test of SSv2: that isn't a leak."""
    options = write_ssv2_webm(tmp_path / "data")
    assert check(tmp_path / "report", options, recipe=SSV2) == 0
    text = capsys.readouterr().out
    assert table(text)["train"].startswith("8 8 / 174 ")
    assert "val and test share 3 videos" in text
    assert "train has 8 videos" in text
    assert "168,913" in text
    said = sum(line.startswith("- ") for line in text.splitlines())
    assert text.splitlines()[-1] == f"no broken files; {said} warnings above"


def test_clean_lists_of_frames_mean_the_same_images(tmp_path: Path) -> None:
    """As read with the same recipe: images 1 to 6 of a folder 0 to 9 are no others."""
    options, output = write_ssv2_frames(tmp_path / "data", lists=True), tmp_path / "report"
    frames = tmp_path / "data" / "frames"
    shutil.copy(frames / "0" / "0_000001.jpg", frames / "0" / "0_000000.jpg")
    (frames / "3" / "3_000004.jpg").unlink()
    assert check(output, options, recipe=SSV2) == 1
    datasets = []
    for folder in (tmp_path / "data", output):
        cfg = get_cfg()
        cfg.merge_from_file(SSV2)
        cfg.merge_from_list([str(word) for pair in options.items() for word in pair])
        cfg.DATA.PATH_TO_DATA_DIR = str(folder)
        datasets.append(build_dataset("ssv2", cfg, "train"))
    before, after = (list(dataset.records) for dataset in datasets)
    assert after == [*before[:3], *before[4:]]
    assert datasets[0][0][0].equal(datasets[1][0][0])


def test_only_parts_that_overlap_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "v", 30)
    lists = {"train": "v 10 0\nv 20 10 1\n", "val": "v 10 9 1\nv 18 4 1\n", "test": "v 9 3 1\n"}
    for split, rows in lists.items():
        (tmp_path / f"{split}.csv").write_text(rows)
    options = {"DATA.PATH_TO_DATA_DIR": tmp_path, "DATA.PATH_PREFIX": tmp_path}
    options |= {"DATA.CLASS_NAMES": "", "MODEL.NUM_CLASSES": 2}
    assert check(tmp_path / "report", options) == 1
    found = [(Path(p["where"]).name, p["problem"]) for p in read_problems(tmp_path / "report")]
    assert [(where, problem.split("(")[1].rpartition(", ")[2]) for where, problem in found] == [
        ("val.csv, line 2", "line 2)"),
        ("test.csv, line 1", "line 1)"),
    ]
    assert "val and test share 1 video," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("one", "other", "leaks"),
    [
        (Record("a", 0, 0, 10), Record("a", 0, 10, 20), False),
        (Record("a", 0, 0, 11), Record("a", 0, 10, 20), True),
        (Record("a", 0, 10), Record("a", 0, 3, 10), False),
        (Record("a", 0), Record("a", 0, 3, 10), True),
        (Record("a", 0, images=Images(0, 9)), Record("a", 0), True),
        (Record("a", 0, images=Images(1, 9, "x_1.jpg")), Record("a", 0), True),
        (*(Record("a", 0, images=Images(1, 9, f"{x}_1.jpg")) for x in "xy"), False),
        (*(Record("a", 0, images=Images(i, 9, f"x_{i}.jpg")) for i in (1, 9)), True),
        (*(Record("a", 0, images=Images(i, 9, f"x_{i}.jpg")) for i in (1, 10)), False),
    ],
)
def test_parts_that_overlap(one: Record, other: Record, leaks: bool) -> None:
    reports = [
        SplitReport(name, SimpleNamespace(records=[r]), [VideoReport("a", "a")], 1)
        for name, r in {"val": one, "train": other}.items()
    ]
    assert bool(list(shared(*reports))) == bool(list(shared(*reports[::-1]))) == leaks


class Counted:
    """A report of so many videos."""

    def __init__(self, name: str, count: int, classes: int) -> None:
        self.name, self.videos, self.num_classes = name, range(count), classes


@pytest.mark.parametrize(
    ("dataset", "classes", "split", "count", "said"),
    [
        ("Kinetics", 400, "train", 238_000, None),
        ("kinetics", 400, "train", 215_000, "89.6 % of the 240,000 of Kinetics-400"),
        ("kinetics", 400, "val", 18_000, "between 0.909 A and 0.909 A + 9.1 points"),
        ("kinetics", 600, "test", 30_000, None),
        ("kinetics", 101, "train", 9_537, None),
        ("diving48", 48, "train", 15_943, None),
        ("diving48", 48, "train", 15_000, None),
        ("diving48", 48, "test", 1_200, "60.9 % of the 1,970 of Diving-48 V2"),
        ("ssv2", 174, "test", 1_000, "too few"),
        ("howto100m", 1059, "train", 120_000, "isn't the set that the paper used"),
    ],
)
def test_sizes_of_known_data_sets(
    dataset: str, classes: int, split: str, count: int, said: str | None
) -> None:
    warnings = list(size_warnings([Counted(split, count, classes)], dataset))
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]
