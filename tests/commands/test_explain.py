"""`timesformer explain`: files that people look at, and numbers beside them."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import complaint_of, read_npz, small_cfg, small_model

from timesformer.commands.explain import main
from timesformer.datasets.decoder import decode_all
from timesformer.explain import videos
from timesformer.models.build import build_model
from timesformer.models.weights.save import save_pretrained

NAMES = ("left", "right", "up", "down", "growing", "shrinking")


@pytest.fixture(scope="module")
def model(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    made = small_model(synthetic_dir, folder / "run")
    made.class_names = NAMES
    save_pretrained(made, folder / "saved")
    return folder / "saved"


@pytest.fixture(scope="module")
def video(synthetic_dir: Path) -> Path:
    return sorted((synthetic_dir / "test").rglob("*.mp4"))[0]


@pytest.mark.parametrize("method", ["rollout", "gradient", "occlusion"])
def test_one_video(
    model: Path,
    video: Path,
    tmp_path: Path,
    method: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    options = [] if method == "rollout" else ["--class", "up"]
    words = ["--checkpoint", str(model), "--out", str(tmp_path), "--method", method, *options]
    main([str(video), *words])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("contact_sheet.png", "heads.png", "maps.npz", "overlay.gif", "overlay.mp4")
    }
    found = read_npz(tmp_path / "maps.npz")
    assert found["maps"].shape == (4, 4, 4)
    assert found["maps"].sum() == pytest.approx(1.0)
    assert found["importance"].sum() == pytest.approx(1.0)
    assert np.diff(found["frames"]).tolist() == [2, 2, 2]
    told = json.loads(str(found["faithfulness"]))
    assert told["scores"].keys() == {"map", "random", "centre"}
    said, watched = capsys.readouterr()
    assert told["verdict"] in said
    assert ("occlusion:   0%" in watched) == (method == "occlusion")
    assert "how far to believe:   0%" in watched
    if options:
        assert int(found["label"]) == 2
        assert ": up " in said
    with Image.open(tmp_path / "overlay.gif") as gif:
        assert gif.n_frames == 4
    assert len(list(decode_all(tmp_path / "overlay.mp4"))) == 4


def test_a_folder_goes_on_after_what_cant_be_read(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos" / "a b").mkdir(parents=True)
    (tmp_path / "videos" / "a b" / "x.mp4").write_bytes(video.read_bytes())
    (tmp_path / "videos" / "broken & cut.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "videos"), "--checkpoint", str(model), "--out", str(out)])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert "broken & cut.mp4" in error
    assert "1 video couldn't be read" in error
    page = (out / "index.html").read_text()
    assert 'src="a%20b/x/contact_sheet.png"' in page
    assert (out / "a b" / "x" / "contact_sheet.png").is_file()
    (row,) = re.findall(r"1 video couldn't be read:</p>\n<ul>\n<li>(.+)</li>\n</ul>", page)
    assert html.unescape(row) in error
    assert "broken &amp; cut.mp4: " in row


def test_videos_of_one_name_have_a_folder_each(model: Path, video: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("x.mp4", "x.mkv", "y.mp4"):
        (tmp_path / "videos" / name).write_bytes(video.read_bytes())
    out = tmp_path / "out"
    main([str(tmp_path / "videos"), "--checkpoint", str(model), "--out", str(out)])
    assert {path.parent.name for path in out.rglob("maps.npz")} == {"x.mp4", "x.mkv", "y"}
    page = (out / "index.html").read_text()
    assert "couldn't be read" not in page
    assert 'src="x.mp4/contact_sheet.png"' in page
    assert 'src="x.mkv/contact_sheet.png"' in page


def test_weights_that_dont_say_how_their_input_is_made(
    synthetic_dir: Path, video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = build_model(small_cfg(synthetic_dir, tmp_path / "run"))
    save_pretrained(made, tmp_path / "silent")
    made.preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
    save_pretrained(made, tmp_path / "timeless")
    words = (video, "--out", tmp_path / "out", "--checkpoint")
    assert "timesformer convert" in complaint_of(main, *words, tmp_path / "silent")
    main([*map(str, words), str(tmp_path / "timeless"), "--sampling-rate", "3"])
    assert "sampling_rate 3" in caplog.text
    near = np.ptp(read_npz(tmp_path / "out" / "maps.npz")["frames"])
    main([*map(str, words), str(tmp_path / "timeless")])
    assert "sampling segments" in caplog.text
    assert near < np.ptp(read_npz(tmp_path / "out" / "maps.npz")["frames"])


def test_damage_is_told(
    model: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read = videos.read_middle
    monkeypatch.setattr(videos, "read_middle", lambda *args: (*read(*args)[:2], "ends early"))
    main([str(video), "--checkpoint", str(model), "--out", str(tmp_path)])
    assert f"{video} (damaged: ends early): " in capsys.readouterr().out


def test_mistakes(model: Path, video: Path, tmp_path: Path) -> None:
    words = (video, "--checkpoint", model, "--out", tmp_path)
    assert "rollout is about no class" in complaint_of(main, *words, "--class", "up")
    printed = complaint_of(main, *words, "--class", "uo", "--method", "gradient")
    assert "--class uo: none of 6 classes; did you mean up?" in printed
    rate = ("--sampling-rate", "2")
    assert "weights say which frames they take" in complaint_of(main, *words, *rate)
    missing = complaint_of(main, tmp_path / "no.mp4", *words[1:])
    assert "no.mp4" in missing
    (tmp_path / "heads.png").mkdir()
    assert "heads.png: is a folder" in complaint_of(main, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["heads.png"]
