"""Features of many videos: what a row is, and that it doesn't matter how the work was cut."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import complaint_of, small_model
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import RateSampler
from timesformer.clips.windows import WindowSampler
from timesformer.commands.extract import main
from timesformer.datasets.decoder import load_clip
from timesformer.inference import features as files
from timesformer.inference import work as files_of_work
from timesformer.inference.extract import CLAIMS, extract
from timesformer.inference.features import read, read_manifest, read_part, video_id
from timesformer.inference.given import find, records_of
from timesformer.inference.load import load
from timesformer.inference.manifest import MANIFEST_CLAIM
from timesformer.inference.passes import Look, Pass, Piece
from timesformer.inference.settings import Settings, look_of, stored
from timesformer.models import base
from timesformer.models.create import create_model
from timesformer.utils.claims import Claims
from timesformer.utils.errors import UserError

FAST = Settings(part=2, batch_size=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(synthetic_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "small"
    torch.manual_seed(0)
    small_model(synthetic_dir, folder.parent / "run").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(weights):
    return load(weights, device="cpu")


@pytest.fixture(scope="module")
def videos(synthetic_dir):
    return find([synthetic_dir / "test"])


def contents(folder: Path) -> dict[str, bytes]:
    there = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in there}


def clips_of(model, path, crops):
    return model.transform(load_clip(path, **model.model.sampling), crops)


def test_a_row_is_what_the_head_gets(model, videos, tmp_path):
    """The mean over the test's views, of each video of the list in its order."""
    summary = extract(model, videos, tmp_path, FAST)
    assert (summary.videos, summary.done, summary.there, summary.failed) == (12, 12, 0, 0)
    assert summary.width == 24
    found = [*read(tmp_path)]
    assert [f.path for f in found] == [record.path for record in videos]
    with torch.no_grad():
        for one in found[:3]:
            seen = model.model.eval().clip_features(clips_of(model, one.path, 3)).mean(dim=0)
            np.testing.assert_allclose(one.features, seen.numpy(), atol=1e-6)
            assert one.times is None


def test_frames_and_patches_after_a_block(model, videos, tmp_path):
    some = videos.take([0, 1, 2])
    layers = {
        "frames": Settings(level="frame", views="1x1"),
        "maps": Settings(level="patch", fp16=True),
        "inner": Settings(level="patch", layer=-2),
        "cls": Settings(layer=0, views="1x1"),
    }
    found = {}
    for name, settings in layers.items():
        extract(model, some, tmp_path / name, settings)
        found[name] = next(iter(read(tmp_path / name)))
    clips = clips_of(model, some[0].path, 1)
    with torch.no_grad():
        [last] = model.model.get_intermediate_layers(clips, [-1])
        [(inner, cls)] = model.model.get_intermediate_layers(
            clips, [0], norm=False, return_cls=True
        )
    assert found["maps"].features.shape == tuple(last[0].shape) == (4, 4, 4, 24)
    np.testing.assert_allclose(found["maps"].features, last[0].numpy(), rtol=1e-3, atol=1e-3)
    assert found["maps"].features.dtype == np.float16
    np.testing.assert_allclose(found["inner"].features, inner[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found["cls"].features, cls[0].numpy(), atol=1e-6)
    frames = found["frames"]
    np.testing.assert_allclose(frames.features, last[0].mean(dim=(1, 2)).numpy(), atol=1e-6)
    assert np.allclose(np.diff(frames.times), 2 / 30, atol=1 / 30)


def test_windows_show_the_frames_of_their_seconds(model, tmp_path):
    """Red is the number of a frame; 70 frames, windows of 4 × 2 at 30 frames/s, every half second.

    In passes of three: the video is opened again in the middle.
    """
    path = write_video(tmp_path / "a.mp4", numbered_frames(70, 64, 64))
    settings = Settings(stride=0.5, batch_size=3, file_format="npy")
    look = look_of(model, settings)
    dataset = look.dataset(model.model, records_of([path]))
    passes = [*look.passes(0, range(1), dataset.length)]
    assert [len(p.pieces) for p in passes] == [1, 1]
    [first, second] = dataset.__getitems__(passes)
    pixels = torch.cat([first.pixels, second.pixels])
    offsets = [0, 2, 4, 7]
    expected = [[15 * i + offset for offset in offsets] for i in range(5)]
    assert pixels[:, 0, :, 0, 0].tolist() == expected
    extract(model, [path], tmp_path / "out", settings)
    rows = np.load(tmp_path / "out" / "features" / "a.npy")
    assert rows.shape == (5, 24)
    [found] = read(tmp_path / "out")
    assert np.array_equal(found.features, rows)
    assert found.times.tolist() == pytest.approx([0.5 * i + 8 / 60 for i in range(5)])
    asked = read_manifest(tmp_path / "out")["asked"]
    assert (asked["stride"], asked["window"]) == (0.5, pytest.approx(8 / 30))


@pytest.mark.parametrize("fps", [Fraction(25, 2), 25, Fraction(30000, 1001), 60])
def test_a_row_is_of_the_second_that_detectors_take_it_for(model, tmp_path, fps):
    """ActionFormer: a row is at (row × feat_stride + num_frames / 2) / default_fps seconds.

    OpenTAD's data sets with an fps: the same, with offset_frames for num_frames / 2.
    """
    path = write_video(tmp_path / "a.mp4", numbered_frames(70, 64, 64), fps=fps)
    look = look_of(model, Settings(stride=0.4, file_format="npy"))
    dataset = look.dataset(model.model, records_of([path]))
    found = dataset.__getitems__([*look.passes(0, range(1), dataset.length)])
    shown = torch.cat([one.pixels for one in found])[:, 0, :, 0, 0].mean(dim=1)
    feat_stride, num_frames = 0.4 * 30, look.windows.window * 30
    assert (feat_stride, num_frames) == (12, 8)
    taken = (torch.arange(len(shown)) * feat_stride + num_frames / 2) / 30
    assert len(shown) == 1 + int((70 / fps - num_frames / 30) / 0.4)
    assert ((shown + 0.5) / float(fps) - taken).abs().max() < float(1 / fps)


@pytest.mark.parametrize(
    "settings",
    [FAST, replace(FAST, stride=0.1, file_format="npy"), replace(FAST, level="frame", fp16=True)],
    ids=["clip", "windows", "frames"],
)
def test_where_a_run_breaks_changes_nothing(model, videos, tmp_path, monkeypatch, settings):
    """Two parts torn in the middle of their files; what other runs left; shares."""
    videos = videos.take(range(8))
    extract(model, videos, tmp_path / "whole", settings)
    expected = contents(tmp_path / "whole")
    save = np.savez

    def torn(file, **arrays):
        file.write(b"half a file")
        monkeypatch.setattr(np, "savez", save)  # the next run gets further
        raise KeyboardInterrupt

    for _ in range(2):
        calls = []

        def second_is_torn(file, calls=calls, **arrays):
            calls.append(1)
            (save if len(calls) < 2 else torn)(file, **arrays)

        monkeypatch.setattr(np, "savez", second_is_torn)
        with pytest.raises(KeyboardInterrupt):
            extract(model, videos, tmp_path / "broken", settings)
    assert len([*(tmp_path / "broken" / "parts").glob("part-*")]) == 2
    with pytest.raises(UserError, match="2 of 4 parts are missing"):
        [*read(tmp_path / "broken")]
    assert len([*read(tmp_path / "broken", partial=True)]) == 4
    summary = extract(model, videos, tmp_path / "broken", settings)
    assert (summary.done, summary.there) == (4, 4)
    assert contents(tmp_path / "broken") == expected
    for i in (3, 1, 2):
        extract(model, videos, tmp_path / "shares", settings, share=(i, 3))
    assert contents(tmp_path / "shares") == expected
    if settings is FAST:
        extract(model, videos, tmp_path / "workers", settings, workers=2)
        assert contents(tmp_path / "workers") == expected


def test_a_pass_is_made_of_places_in_the_list():
    """Two videos of three views fit into eight clips; four windows of two crops."""
    look = Look(base.Testing(1, 3), None, 8)
    passes = [*look.passes(7, range(4, 9), lambda index: (0, 0.0))]
    assert [[p.index for p in one.pieces] for one in passes] == [[4, 5], [6, 7], [8]]
    assert {one.part for one in passes} == {7}
    windows = Look(base.Testing(1, 2), WindowSampler(RateSampler(4, 30, 120.0), 1.0), 8)
    found = [*windows.passes(0, range(1), lambda index: (180, 30.0))]
    assert found == [Pass(0, (Piece(0, 0, 4, 6),)), Pass(0, (Piece(0, 4, 2, 6),))]


def test_a_broken_video_is_a_row(weights, videos, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    words = [videos[0].path, str(broken), videos[1].path, "--checkpoint", str(weights)]
    words += ["--out", str(tmp_path / "out"), "--device", "cpu", "--workers", "0"]
    for done in (3, 0):
        with pytest.raises(SystemExit) as end:
            main([*words, "--json"])
        assert end.value.code == 1
        line = json.loads(capsys.readouterr().out)
        assert (line["done"], line["there"], line["failed"]) == (done, 3 - done, 1)
    with (tmp_path / "out" / "failed.csv").open() as file:
        [row] = csv.DictReader(file)
    assert (row["index"], row["path"]) == ("1", str(broken))
    assert row["error"]
    rows = [*read_part(tmp_path / "out", 0, "npz")]
    assert [len(row.features) for row in rows] == [1, 0, 1]
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert [found.path for found in read(tmp_path / "out")] == [videos[0].path, videos[1].path]
    with pytest.raises(SystemExit):
        main([*words, "--stride", "0.2", "--out", str(tmp_path / "windows")])
    told = capsys.readouterr()
    assert "1 video couldn't be read" in told.err
    assert "3 videos in" in told.out


def test_another_setting_is_refused(weights, model, videos, tmp_path):
    words = [videos[0].path, "--checkpoint", weights, "--out", tmp_path, "--device", "cpu"]
    extract(model, videos.take([0]), tmp_path)
    told = complaint_of(main, *words, "--layer", "0", "--fp16")
    assert "has features of layer 1, not 0, dtype float32, not float16: choose another" in told
    assert told.count("\n") == 1
    assert "frames_fps 30.0, not 15.0" in complaint_of(main, *words, "--frames-fps", "15")
    assert "other inputs" in complaint_of(main, videos[1].path, *words)
    (tmp_path / "manifest.json").write_text("{}")
    assert "manifest.json: not what `timesformer extract` writes" in complaint_of(main, *words)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--out: the folder to fill is needed"),
        (["--out", "{out}", "--layer", "2"], "layer 2: the model has 2 blocks, 0 to 1"),
        (["--out", "{out}", "--level", "patch", "--views", "1x3"], "views 1x3: maps of patches"),
        (["--out", "{out}", "--stride", "1s", "--views", "4x1"], "windows take the place of clips"),
        (["--out", "{out}", "--stride", "0s"], "--stride 0: must be above 0"),
        (["--out", "{out}", "--stride", "1e-9"], "stride 1e-09: must be 0.001 s or more"),
        (["--out", "{out}", "--shard", "3/2"], "--shard 3/2: i/n"),
        (["{copy}", "--out", "{out}", "--format", "npy"], "would both be "),
    ],
)  # fmt: skip
def test_mistakes(weights, videos, tmp_path, words, complaint):
    copy = tmp_path / Path(videos[0].path).name
    shutil.copy(videos[0].path, copy)
    words = [word.format(out=tmp_path / "out", copy=copy) for word in words]
    told = complaint_of(main, videos[0].path, *words, "--checkpoint", weights, "--device", "cpu")
    assert complaint in told
    assert told.count("\n") == 1


def test_models_without_tokens_have_clips(videos, tmp_path):
    """A CNN: its level is clip, of the last layer."""
    net = create_model("x3d_m", num_classes=5).eval()
    net.preprocessing |= {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
    net.preprocessing |= {"num_frames": 4, "sampling_rate": 2, "crop_size": 64, "short_side": 64}
    with pytest.raises(UserError, match=r"level frame: .* has no tokens of frames and patches"):
        extract(net, videos.take([0]), tmp_path, Settings(level="frame"))
    with pytest.raises(UserError, match="layer 3: "):
        extract(net, videos.take([0]), tmp_path, Settings(layer=3))
    summary = extract(net, videos.take([0]), tmp_path, Settings(views="1x1"))
    assert summary.width == next(iter(read(tmp_path))).features.shape[0] > 100


def test_equal_parts_have_no_windows(model, videos, tmp_path):
    model = load_segments(model)
    with pytest.raises(UserError, match="nothing says how long a window is"):
        extract(model, videos.take([0]), tmp_path, Settings(stride=1.0))


def load_segments(model):
    from copy import deepcopy

    other = deepcopy(model)
    other.model.preprocessing["sampling"] = "segments"
    return other


def test_what_float16_cannot_hold_is_told():
    row = files.VideoFeatures(0, "a.mp4", np.full((1, 2), 7e4, np.float32), np.zeros(1))
    with pytest.raises(UserError, match=r"a\.mp4: features beyond what float16 holds"):
        stored(row, True)
    assert stored(row, False) is row


def test_names_of_videos():
    assert [*map(video_id, ["a/v_x.y.mp4", "b/frames.1", "c/N.MKV"])] == ["v_x.y", "frames.1", "N"]


def test_parquet_says_the_same(model, videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    words = [videos[0].path, broken, videos[1].path]
    for settings in (Settings(), Settings(level="frame", fp16=True)):
        made = [tmp_path / f"{settings.level}-{name}" for name in ("npz", "parquet")]
        for folder, file_format in zip(made, ("npz", "parquet"), strict=True):
            extract(model, words, folder, replace(settings, file_format=file_format))
        for one, other in zip(*map(read, made), strict=True):
            assert one.path == other.path
            assert one.features.dtype == other.features.dtype
            assert np.array_equal(one.features, other.features)
            assert np.array_equal(one.times, other.times)
        failed = [folder / "failed.csv" for folder in made]
        assert failed[0].read_text() == failed[1].read_text()


def test_a_plan_counts(weights, videos, capsys):
    """Costs are proportional to the number of videos, bytes are those of a row."""
    words = [videos[0].path, videos[1].path, "--checkpoint", str(weights), "--device", "cpu"]
    main([*words, "--plan", "--workers", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [f"{10**i:,}" for i in range(4, 9)]
    assert lines[1].endswith("960 kB")  # 24 float32
    assert lines[5].endswith("9.6 GB")
    assert lines[6].startswith("measured on the CPU")


@pytest.mark.slow
def test_killed_and_run_again(model, videos, tmp_path):
    """SIGKILL anywhere, in the decoding, the model or a file."""
    if not hasattr(os, "fork"):
        pytest.skip("runs are forked, which this system can't")
    start = time.perf_counter()
    extract(model, videos, tmp_path / "whole", FAST)
    took = time.perf_counter() - start
    rng = random.Random(0)
    for _ in range(8):
        child = os.fork()
        if not child:
            extract(model, videos, tmp_path / "killed", FAST)
            os._exit(0)
        time.sleep(rng.uniform(0, took / 3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    extract(model, videos, tmp_path / "killed", FAST)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_parts_that_nobody_knows_what_they_are_of(model, videos, tmp_path):
    """Without its manifest, or with a part of other videos, a folder isn't taken for done."""
    extract(model, videos, tmp_path, FAST)
    parts = sorted((tmp_path / "parts").iterdir())
    kept = parts[1].read_bytes()
    shutil.copy(parts[0], parts[1])
    with pytest.raises(UserError, match=r"part-0000001.npz: damaged.*other videos"):
        extract(model, videos, tmp_path, FAST)
    with pytest.raises(UserError, match=r"part-0000001.npz: damaged.*other videos"):
        [*read(tmp_path)]
    parts[1].write_bytes(kept)
    said = json.loads((tmp_path / "manifest.json").read_text())
    for more in ({"threads": "two"}, {"versions": []}, {"asked": said["asked"] | {"videos": 0}}):
        (tmp_path / "manifest.json").write_text(json.dumps(said | more))
        with pytest.raises(UserError, match=r"manifest.json: not what .* choose another folder"):
            extract(model, videos, tmp_path, FAST)
    assert said["asked"].pop("backend") == "torch"  # earlier ones don't say it
    (tmp_path / "manifest.json").write_text(json.dumps(said))
    extract(model, videos, tmp_path, FAST)
    said["asked"]["backend"] = "blocks"
    (tmp_path / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"backend blocks, not torch: choose another folder"):
        extract(model, videos, tmp_path, FAST)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has parts, and no manifest.json"):
        extract(model, videos, tmp_path, replace(FAST, layer=0))
    assert not (tmp_path / "manifest.json").exists()


def test_npy_files_are_watched(model, videos, tmp_path):
    """One that is lost is noticed by the next run, one that is another by its reader."""
    settings = replace(FAST, file_format="npy")
    extract(model, videos, tmp_path, settings)
    first, second = (
        tmp_path / "features" / f"{video_id(record.path)}.npy" for record in list(videos)[:2]
    )
    kept = first.read_bytes()
    shutil.copy(second, first)
    with pytest.raises(UserError, match=rf"{first.name} has changed"):
        [*read(tmp_path)]
    first.unlink()
    with pytest.raises(UserError, match=rf"part-0000000.npz: damaged.*{first.name}"):
        extract(model, videos, tmp_path, settings)
    (tmp_path / "parts" / "part-0000000.npz").unlink()
    assert extract(model, videos, tmp_path, settings).done == 2
    assert first.read_bytes() == kept


def test_a_video_that_changed_is_told(model, tmp_path, caplog):
    """Its features stay; the part to delete is named."""
    for name, level in (("a", 10), ("b", 200)):
        write_video(tmp_path / f"{name}.mp4", np.full((12, 32, 48, 3), level, np.uint8))
    listed = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    extract(model, listed, tmp_path / "out", replace(FAST, part=1))
    extract(model, listed, tmp_path / "out", replace(FAST, part=1))
    assert "newer" not in caplog.text
    part = sorted((tmp_path / "out" / "parts").iterdir())[-1]
    later = part.stat().st_mtime + 1
    os.utime(listed[1], (later, later))
    extract(model, listed, tmp_path / "out", replace(FAST, part=1))
    assert f"{listed[1]}: newer than its features (1 such video)" in caplog.text
    assert str(part) in caplog.text


def test_runs_that_end_at_once_list_what_failed(model, tmp_path, monkeypatch):
    """The list is written by one of them at a time."""
    (tmp_path / "bad.mp4").write_bytes(b"")
    held = []
    write = files_of_work.write_csv

    def noting(path, rows):
        pid = os.fork()  # locks are of a process
        if not pid:
            os._exit(Claims(tmp_path / "out" / CLAIMS).take(MANIFEST_CLAIM))
        held.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0)
        write(path, rows)

    monkeypatch.setattr(files_of_work, "write_csv", noting)
    extract(model, [tmp_path / "bad.mp4"], tmp_path / "out", FAST)
    assert held == [True]
