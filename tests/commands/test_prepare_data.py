"""`timesformer prepare-data`: resumed, never mixed up, and its lists train as the recipe's own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import (
    Options,
    write_folder,
    write_kinetics_strings,
    write_multi_label,
    write_ssv2_frames,
    write_tiny,
)
from PIL import Image
from small_run import PYTHONPATH, ROOT

from timesformer.commands.prepare_data import main
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import SPLITS, build_dataset
from timesformer.datasets.decoder import decode_all, probe
from timesformer.prepare.copies import Job, Prepare, is_done
from timesformer.prepare.transcode import TranscodeSettings
from timesformer.utils.errors import UserError

KINETICS = ROOT / "configs" / "Kinetics" / "TimeSformer_divST_8x32_224.yaml"
SMALL = ROOT / "configs" / "Finetune" / "TimeSformer_divST_8x32_224_small.yaml"
SSV2 = ROOT / "configs" / "SSv2" / "TimeSformer_divST_8_224.yaml"


def prepare(output: Path, *words: object) -> None:
    main(["--output", str(output), "--workers", "0", *map(str, words)])


def pairs(options: Options) -> list[str]:
    return [str(word) for pair in options.items() for word in pair]


def rows(recipe: Path, words: list[str], split: str) -> list[tuple[str, object]]:
    """Name (without suffix) and label of each video that a recipe reads, and proof that it can."""
    cfg = get_cfg()
    cfg.merge_from_file(recipe)
    cfg.merge_from_list(words)
    dataset = build_dataset(cfg.TRAIN.DATASET, cfg, split)
    assert dataset[0][0].ndim >= 4
    return [(Path(record.path).with_suffix("").name, record.label) for record in dataset.records]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): (f.stat().st_size, f.stat().st_mtime_ns) for f in found}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "in" / "a.mp4", 20)
    write_tiny(tmp_path / "in" / "more" / "b.avi", 20)
    (tmp_path / "in" / "notes.txt").write_text("no video")
    return tmp_path / "in"


def test_a_source_that_another_file_replaces_is_prepared_anew(tmp_path: Path) -> None:
    """Though it may be older, as with `cp -p` and `rsync -t`."""
    source, job = tmp_path / "a.mp4", Job(str(tmp_path / "a.mp4"), str(tmp_path / "out.mp4"))
    write_tiny(source, 4)
    prepare = Prepare(TranscodeSettings())
    for nanoseconds in (1_600_000_000_123_456_789, 1_500_000_000_000_000_000, 10**18 + 10**17):
        os.utime(source, ns=(nanoseconds, nanoseconds))
        assert not is_done(job)
        assert not prepare(job).failure
        assert is_done(job)
    os.utime(source, ns=(nanoseconds + 1, nanoseconds + 1))
    assert is_done(job)  # where the file system of copies rounds
    source.unlink()
    assert is_done(job)


@pytest.mark.parametrize(
    ("recipe", "write"),
    [
        (KINETICS, write_kinetics_strings),
        (KINETICS, write_multi_label),
        (SMALL, write_folder),
        (SSV2, write_ssv2_frames),
    ],
)
def test_a_recipe_trains_on_what_the_tool_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: Path, write
) -> None:
    """The same videos with the same labels in every split, by the keys that it prints."""
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    options = pairs({key: "" if v == "''" else v for key, v in write(data).items()})
    prepare(output, "--cfg", recipe, *options)
    keys = capsys.readouterr().out.splitlines()[-1].removeprefix("train with ").split(",")[0]
    for split in SPLITS:
        before = rows(recipe, options, split)
        assert rows(recipe, [*options, *keys.split()], split) == before
        assert len((output / f"{split}.csv").read_text().splitlines()) == len(before)
    assert not list(output.rglob("*.tmp"))


def test_broken_sources_are_listed_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = write_kinetics_strings(tmp_path / "data")
    broken = tmp_path / "data" / "my videos" / "train clip 3.mp4"
    broken.write_text("no video")
    gone = tmp_path / "data" / "my videos" / "val clip 1.mp4"
    gone.unlink()
    output, words = tmp_path / "out", ["--cfg", KINETICS, *pairs(options)]
    with pytest.raises(SystemExit) as caught:
        prepare(output, *words)
    assert caught.value.code == 1
    assert "11 videos prepared, 0 were there, 2 failed" in capsys.readouterr().out
    with (output / "failed.csv").open() as file:
        header, *failed = csv.reader(file)
    assert header == ["path", "reason"]
    assert [row[0] for row in failed] == [str(broken), str(gone)]
    assert all(row[1] for row in failed)
    assert "train clip 3" not in (output / "train.csv").read_text()
    assert len((output / "train.csv").read_text().splitlines()) == 7
    for path in (broken, gone):
        write_tiny(path, 20)
    prepare(output, *words)
    assert not (output / "failed.csv").exists()
    assert len((output / "train.csv").read_text().splitlines()) == 8


def test_only_what_is_missing_is_done_again(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare(output, "--input", source)
    before = files(output)
    assert list(before) == ["a.mp4", "more/b.mp4", "prepare.json"]
    (output / "more" / ".b.mp4.other.7.tmp").write_text("half a video")
    prepare(output, "--input", source)
    assert files(output) == before
    (output / "a.mp4").unlink()
    prepare(output, "--input", source)
    after = files(output)
    assert after["more/b.mp4"] == before["more/b.mp4"]
    assert after["a.mp4"][0] == before["a.mp4"][0]
    write_tiny(source / "more" / "b.avi", 25)  # newer than the prepared one
    prepare(output, "--input", source)
    assert probe(output / "more" / "b.mp4").frames == 25


def images_of(output: Path, split: str) -> list[list[int]]:
    """Numbers of the images, which are grey 8 i, in each copy of a list that was written."""
    lines = (output / f"{split}.csv").read_text().splitlines()
    return [
        [round(frame.mean() / 8) for frame in decode_all(output / line.rsplit(" ", 1)[0])]
        for line in lines
    ]


def test_images_of_a_folder_are_never_taken_for_others(tmp_path: Path) -> None:
    """Of the same folder in any split, and into the same output whenever."""
    (tmp_path / "in" / "v").mkdir(parents=True)
    for i in range(1, 31):
        picture = np.full((32, 32, 3), 8 * i, np.uint8)
        Image.fromarray(picture).save(tmp_path / "in" / "v" / f"img_{i}.png")
    words = ["--cfg", KINETICS, "DATA.PATH_TO_DATA_DIR", tmp_path, "MODEL.NUM_CLASSES", 3]
    words += ["DATA.PATH_PREFIX", tmp_path / "in", "DATA.CLASS_NAMES", ""]
    for split, rows in {"train": "v 9 1\nv 10 5 0\n", "val": "v 20 9 1\n"}.items():
        (tmp_path / f"{split}.csv").write_text(rows)
    output = tmp_path / "out"
    for split in ("train", "val"):
        prepare(output, "--splits", split, *words)
    train = [list(range(1, 10)), list(range(11, 16))]
    assert images_of(output, "train") == train
    assert images_of(output, "val") == [list(range(21, 30))]
    before = files(output)
    assert [name for name in before if name.endswith(".mp4")] == [
        *("v.1-9.mp4", "v.11-15.mp4", "v.21-29.mp4"),
    ]
    (tmp_path / "train.csv").write_text("v 10 9 1\nv 10 5 0\nv 40 2\n")
    (tmp_path / "val.csv").write_text("v 1\n")
    (tmp_path / "test.csv").write_text("v 9 1\n")
    with pytest.raises(SystemExit):  # 40 images aren't there
        prepare(output, *words)
    assert images_of(output, "train") == [list(range(11, 20)), train[1]]
    assert images_of(output, "val") == [list(range(1, 31))]
    assert images_of(output, "test") == train[:1]
    after = files(output)
    assert all(after[name] == before[name] for name in before if name.endswith(".mp4"))


def test_frame_lists_of_whole_folders_keep_their_names(tmp_path: Path) -> None:
    """JSON annotations, which the copies are read with, know no other ones."""
    options, output = write_ssv2_frames(tmp_path, lists=True), tmp_path / "out"
    rows = (tmp_path / "val.csv").read_text().splitlines()
    (tmp_path / "val.csv").write_text("\n".join(rows[:-3]) + "\n")
    prepare(output, "--cfg", SSV2, *pairs(options))
    names = {path.name for path in output.glob("*.mp4")}
    assert names == {*(f"{i}.mp4" for i in range(10)), "10.10_000001.jpg-17.mp4"}
    assert (output / "val.csv").read_text().splitlines()[-1] == "10.10_000001.jpg-17.mp4 70"


@pytest.mark.parametrize("option", ["--gop", "--crf", "--short-side"])
def test_other_settings_need_another_folder(source: Path, tmp_path: Path, option: str) -> None:
    prepare(tmp_path / "out", "--input", source)
    before = files(tmp_path / "out")
    with pytest.raises(UserError, match=r"made with .* not 4: choose another --output"):
        prepare(tmp_path / "out", "--input", source, option, 4)
    assert files(tmp_path / "out") == before


def test_a_setting_that_is_not_known_needs_another_folder(source: Path, tmp_path: Path) -> None:
    """A later version's, which made other videos by it."""
    output = tmp_path / "out"
    prepare(output, "--input", source)
    manifest = output / "prepare.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"codec": "av1"}))
    with pytest.raises(UserError, match=r"made with codec 'av1', not None: choose another"):
        prepare(output, "--input", source)


def test_what_cannot_be_done_is_said_at_once(source: Path, tmp_path: Path) -> None:
    before, output = files(source), tmp_path / "out"
    with pytest.raises(UserError, match="would be overwritten"):
        prepare(source, "--input", source)
    with pytest.raises(UserError, match="isn't empty"):
        prepare(source / "more", "--input", source / "more")
    with pytest.raises(UserError, match="no such folder"):
        prepare(output, "--input", tmp_path / "nothing")
    with pytest.raises(UserError, match="go with --cfg"):
        prepare(output, "--input", source, "--splits", "train")
    with pytest.raises(UserError, match="--workers"):
        prepare(output, "--input", source, "--workers", -1)
    assert files(source) == before
    assert not output.exists()


def test_videos_that_differ_in_their_suffix_stay_apart(source: Path, tmp_path: Path) -> None:
    write_tiny(source / "a.avi", 5)
    prepare(tmp_path / "out", "--input", source)
    names = ["a.avi.mp4", "a.mp4.mp4", "more/b.mp4", "prepare.json"]
    assert list(files(tmp_path / "out")) == names


def test_an_output_in_the_source_is_no_source(source: Path) -> None:
    prepare(source / "out", "--input", source)
    prepare(source / "out", "--input", source)
    assert list(files(source / "out")) == ["a.mp4", "more/b.mp4", "prepare.json"]


def children(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("name", ["SIGKILL", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_killed_run_leaves_whole_videos_and_no_process(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)  # Windows has no SIGKILL
    source, output = tmp_path / "in", tmp_path / "out"
    write_tiny(source / "a.mp4", 10)
    long = write_tiny(source / "b.mp4", 500, side=96)
    tool = str(ROOT / "tools" / "prepare_data.py")
    words = [tool, "--input", str(source), "--output", str(output), "--workers", "1", "--crf", "0"]
    env = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, env=env)
    while not list(output.glob(".b.mp4.*.tmp")):
        assert process.poll() is None
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    deadline = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [path.name for path in output.glob("[!.]*.mp4")] == ["a.mp4"]
    if number == signal.SIGINT:
        assert not list(output.glob(".*.tmp"))
        assert b"run it again to go on" in error
        assert b"Traceback" not in error
    else:
        prepare(output, "--input", source, "--crf", 0)
        assert sum(1 for _ in decode_all(output / "b.mp4")) == probe(long).frames
        assert sorted(path.name for path in output.iterdir()) == ["a.mp4", "b.mp4", "prepare.json"]
