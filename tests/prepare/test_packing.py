"""`prepare-data --shards`: whole, once, the same after a kill; what is trained on them is equal."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataset_layouts import write_kinetics_strings, write_ssv2_frames, write_tiny
from shard_fixtures import pack
from small_run import ROOT, complaint_of, small_cfg, stats

from timesformer.commands.check_data import main as check_data
from timesformer.commands.prepare_data import main
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.video.shards import UNFINISHED, Member, open_shards
from timesformer.engine.resume import list_digest
from timesformer.engine.train import train
from timesformer.prepare import copies
from timesformer.prepare.packing import Limit, Packer
from timesformer.utils.errors import UserError

KINETICS = ROOT / "configs" / "Kinetics" / "TimeSformer_divST_8x32_224.yaml"
SSV2 = ROOT / "configs" / "SSv2" / "TimeSformer_divST_8_224.yaml"


def prepare(output: Path, *words: object) -> None:
    main(["--output", str(output), "--workers", "0", *map(str, words)])


@pytest.fixture
def quick_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is the file itself: x264 doesn't always make the same bytes, and shards must."""

    def copy(source: str, target: str, *_: object) -> None:
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(copies, "transcode", copy)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def made(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files the tars are, and when they were written."""
    found = [path.stat() for path in sorted(folder.glob("shard-*.tar"))]
    return {str(i): (status.st_ino, status.st_mtime_ns) for i, status in enumerate(found)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i in range(7):
        write_tiny(tmp_path / "in" / f"{i}.mp4", 6, seed=i)
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("3", Limit(videos=34)),
        ("1000", Limit(videos=1)),
        ("500MB", Limit(bytes=500_000_000)),
        ("1.5 GiB", Limit(bytes=3 << 29)),
        ("100k", Limit(bytes=100_000)),
    ],
)
def test_number_or_size(text: str, limit: Limit) -> None:
    assert Limit.of(text, 100) == limit


@pytest.mark.parametrize("text", ["0", "-1", "x", "1XB", "10B", "1.5", "", "1e3"])
def test_neither_number_nor_size(text: str) -> None:
    with pytest.raises(UserError, match="a number of shards, or bytes of each"):
        Limit.of(text, 100)


@pytest.mark.usefixtures("quick_copies")
def test_copies_are_those_of_files(source: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "files", "--input", source)
    prepare(tmp_path / "shards", "--input", source, "--shards", 3)
    shards = open_shards(str(tmp_path / "shards"))
    assert shards
    assert [shard.name for shard in shards.contents.shards] == [
        f"shard-00000{i}.tar" for i in range(3)
    ]
    assert [m.entry.shard for m in shards.members()] == [0, 0, 0, 1, 1, 1, 2]
    for member in shards.members():
        assert member.read() == (tmp_path / "files" / member.name).read_bytes()
    assert not (tmp_path / "shards" / UNFINISHED).exists()


@pytest.mark.usefixtures("quick_copies")
@pytest.mark.parametrize("how", [(), ("--as-is",)])
def test_after_a_kill_what_is_complete_is_not_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    words = ("--input", source, "--shards", 3, *how)
    prepare(tmp_path / "straight", *words)
    add, output = Packer.add, tmp_path / "killed"

    def killed(self: Packer, files: list[tuple[Path, str]], spent: bool = False) -> None:
        add(self, files, spent)
        if files[0][1] == "4.mp4":
            (output / "shard-000001.tar").write_bytes(b"before its rows")
            raise KeyboardInterrupt

    monkeypatch.setattr(Packer, "add", killed)
    with pytest.raises(SystemExit):
        prepare(output, *words)
    before = made(output)["0"]
    copied: list[str] = []
    monkeypatch.setattr(
        Packer, "add", lambda self, f, spent=False: (copied.append(f[0][1]), add(self, f, spent))
    )
    prepare(output, *words)
    assert copied == ["3.mp4", "4.mp4", "5.mp4", "6.mp4"]
    assert made(output)["0"] == before
    assert contents(output) == contents(tmp_path / "straight")
    copied.clear()
    unchanged = made(output)
    prepare(output, *words)
    assert not copied
    assert made(output) == unchanged
    assert not (output / UNFINISHED).exists()


def test_what_comes_later_is_added_and_what_changed_is_told(source: Path, tmp_path: Path) -> None:
    words = ("--input", source, "--shards", "70KB", "--as-is")
    (source / "bad.mp4").symlink_to("nowhere")
    with pytest.raises(SystemExit):
        prepare(tmp_path / "out", *words)
    assert "bad.mp4" in (tmp_path / "out" / "failed.csv").read_text()
    before = made(tmp_path / "out")
    (source / "bad.mp4").unlink()
    write_tiny(source / "bad.mp4", 6)
    prepare(tmp_path / "out", *words)
    assert not (tmp_path / "out" / "failed.csv").exists()
    assert made(tmp_path / "out").items() > before.items()
    shards = open_shards(str(tmp_path / "out"))
    assert shards
    assert shards.contents.members == 8
    assert len(list((tmp_path / "out").glob("index-*"))) == 1
    assert [member.check() for member in shards.members()] == [None] * 8
    os.utime(source / "3.mp4", (1, 1))
    said = complaint_of(main, "--output", tmp_path / "out", "--workers", 0, *words)
    assert "3.mp4 was changed after it was put into a shard" in said
    said = complaint_of(main, "--output", tmp_path / "out", *words[:3], "3", "--as-is")
    assert "made with shards '70KB', not 3" in said


def test_options_that_say_nothing(source: Path, tmp_path: Path) -> None:
    words = ("--input", source, "--output", tmp_path / "out", "--as-is")
    assert "--as-is goes with --shards" in complaint_of(main, *words)
    assert "say nothing" in complaint_of(main, *words, "--shards", 3, "--crf", 20)
    assert not (tmp_path / "out").exists()


def items(recipe: Path, options: dict[str, object]) -> Iterator[tuple[object, ...]]:
    cfg = get_cfg()
    cfg.merge_from_file(recipe)
    cfg.merge_from_list([str(word) for pair in options.items() for word in pair])
    for split in ("train", "val"):
        dataset = build_dataset(cfg.TRAIN.DATASET, cfg, split)
        yield list_digest(dataset.records), [r.label for r in dataset.records]
        yield from ((item[0].sum().item(), item[1]) for item in dataset)


@pytest.mark.parametrize("layout", ["strings", "frames"])
def test_lists_name_the_same_videos(tmp_path: Path, layout: str) -> None:
    recipe, source = (KINETICS, tmp_path / "in") if layout == "strings" else (SSV2, tmp_path / "in")
    if layout == "strings":
        options = write_kinetics_strings(source)
        options["DATA.TRAIN_CROP_SIZE"] = options["DATA.TEST_CROP_SIZE"] = 32
        options["DATA.TRAIN_JITTER_SCALES"] = "[32,40]"
    else:
        options = write_ssv2_frames(source, lists=True)
    pairs = [word for pair in options.items() for word in pair]
    output = tmp_path / "out"
    words = ("--cfg", recipe, "--shards", 2, "--as-is", "--splits", "train", "val")
    prepare(output, *words, *pairs)
    moved = options | {"DATA.PATH_TO_DATA_DIR": output, "DATA.PATH_PREFIX": output}
    assert list(items(recipe, moved)) == list(items(recipe, options))
    pairs = [word for pair in moved.items() for word in pair]
    said = complaint_of(main, "--output", tmp_path / "again", "--cfg", recipe, *pairs)
    assert "the videos are in shards" in said


def test_training_is_equal(synthetic_dir: Path, tmp_path: Path) -> None:
    """With workers, which read the shards that this process opened."""
    pack(synthetic_dir, tmp_path / "shards")
    for name in ("train.csv", "val.csv", "classes.txt"):
        (tmp_path / "shards" / name).write_bytes((synthetic_dir / name).read_bytes())
    losses = []
    for data in (synthetic_dir, tmp_path / "shards"):
        cfg = small_cfg(data, tmp_path / data.name, DATA_LOADER__NUM_WORKERS=2, SOLVER__MAX_EPOCH=1)
        train(cfg)
        kept = ("iter", "loss", "top1_err", "top1_acc")
        lines = [*stats(tmp_path / data.name, "train_iter"), *stats(tmp_path / data.name, "val")]
        losses.append([{key: line.get(key) for key in kept} for line in lines])
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]


def test_check_data_knows_shards(tmp_path: Path) -> None:
    options = write_kinetics_strings(tmp_path / "in")
    pairs = [word for pair in options.items() for word in pair]
    output = tmp_path / "out"
    prepare(output, "--cfg", KINETICS, "--shards", 2, "--as-is", *pairs)
    moved = options | {"DATA.PATH_TO_DATA_DIR": output, "DATA.PATH_PREFIX": output}
    words = ["--cfg", str(KINETICS), "--workers", "0", "--splits", "train"]
    words += [str(word) for pair in moved.items() for word in pair]

    def problems(*more: str) -> list[list[str]]:
        with contextlib.suppress(SystemExit):
            check_data(["--output", str(tmp_path / "checked"), *more, *words])
        with (tmp_path / "checked" / "problems.csv").open(newline="") as file:
            return list(csv.reader(file))[1:]

    assert problems("--digests") == []
    assert (tmp_path / "checked" / "train.csv").read_text() == (output / "train.csv").read_text()
    with (output / "train.csv").open("a") as file:
        file.write('"my videos/absent.mp4" 0\n')
    tar = output / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    shards = open_shards(str(output))
    assert shards
    member = shards.find(f"{output}/my videos/train clip 2.mp4")
    assert isinstance(member, Member)
    content[member.entry.offset + member.entry.size - 1] ^= 1
    tar.write_bytes(content)
    assert [row[3] for row in problems()] == ["missing"]
    broken, missing = problems("--digests")
    assert missing[1:] == [
        f"{output}/my videos/absent.mp4", f"{output}/train.csv, line 9", "missing",
        f"not in the shards' index, {shards.contents.index}",
    ]  # fmt: skip
    assert broken[3:] == [
        "broken",
        "its SHA-256 isn't that of the index: copy the shard again "
        f"({tar}!my videos/train clip 2.mp4)",
    ]
    index = output / shards.contents.index
    index.write_bytes(index.read_bytes().replace(b"\t1\t512\t", b"\t1\t513\t"))
    said = [row for row in problems() if row[3] == "shard"]
    assert [row[1] for row in said] == [str(index), str(output / "shard-000001.tar")]
