"""`timesformer embed`: from videos to pictures and numbers."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_run import complaint_of, read_npz, small_cfg, small_model
from timm.models.vision_transformer import VisionTransformer as ImageViT
from video_fixtures import numbered_frames, write_video

from timesformer.commands.embed import main
from timesformer.datasets.build import build_preprocessing
from timesformer.models.build import build_model
from timesformer.models.weights.save import save_pretrained
from timesformer.utils.checkpoint import save_checkpoint

LEFT = {"neighbours.png", "index.html", "features.npz", "scores.csv", "cache"}


@pytest.fixture(scope="module")
def folder(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `video`, a saved model; `image.pth`, a ViT of timm; and `image`, that with its input."""
    folder = tmp_path_factory.mktemp("models")
    save_pretrained(small_model(synthetic_dir, folder / "run"), folder / "video")
    image = ImageViT(img_size=64, embed_dim=64, depth=1, num_heads=1, num_classes=0)
    torch.save(image.state_dict(), folder / "image.pth")
    said = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}
    torch.save({"state_dict": image.state_dict(), "preprocessing": said}, folder / "image.pyth")
    return folder


def words(*given: object) -> list[str]:
    return [str(word) for word in (*given, "--workers", 0)]


def test_a_video_and_an_image_model(
    folder: Path,
    synthetic_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = ["--checkpoint", folder / "image.pyth", "--checkpoint", folder / "video"]
    main(words(synthetic_dir, "--split", "train", *both, "--out", tmp_path, "--method", "pca"))
    assert {path.name for path in tmp_path.iterdir()} == {*LEFT, "pca.png"}
    said = capsys.readouterr().out
    assert "train: 24 videos of 6 classes" in said
    assert "image.pyth: its weights don't say which frames it takes: num_frames 4" in caplog.text
    assert "image: 24 videos, 0 of them from the cache" in said
    found = read_npz(tmp_path / "features.npz")
    assert found["features_1"].shape == (24, 64)
    assert found["features_2"].shape == (24, 24)
    assert found["coordinates_2"].shape == (24, 2)
    assert found["checkpoints"].tolist() == ["image", "video"]
    names = [found["class_names"][label].replace(" ", "_") for label in found["labels"]]
    assert names == [Path(path).parent.name for path in found["paths"]]

    main(words(synthetic_dir, "--split", "train", *both[2:], "--out", tmp_path, "--limit", 12))
    assert "video: 12 videos, 12 of them from the cache" in capsys.readouterr().out
    alone = read_npz(tmp_path / "features.npz")
    assert {*alone} >= {"features", "coordinates", "paths", "labels"}
    kept = [found["paths"].tolist().index(path) for path in alone["paths"]]
    assert (alone["features"] == found["features_2"][kept]).all()


def test_an_image_model_is_the_mean_over_frames_of_its_own(folder: Path, tmp_path: Path) -> None:
    """A video of still frames: what timm itself makes of one of them."""
    still = tmp_path / "videos"
    still.mkdir()
    frames = [numbered_frames(60, 64, 64)[i] for i in (0, 9, 22, 35, 47)]
    for i, frame in enumerate(frames):
        write_video(still / f"{i}.mp4", np.stack([frame] * 10))
    main(words(still, "--checkpoint", folder / "image.pyth", "--out", tmp_path / "out"))
    image = ImageViT(img_size=64, embed_dim=64, depth=1, num_heads=1, num_classes=0).eval()
    image.load_state_dict(torch.load(folder / "image.pth", weights_only=True))
    pixels = torch.tensor(np.stack(frames)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = image(pixels.sub(0.5).div(0.5))
    found = read_npz(tmp_path / "out" / "features.npz")
    np.testing.assert_allclose(found["features"], expected, atol=1e-4)
    assert (found["labels"] == -1).all()
    assert (tmp_path / "out" / "scores.csv").read_text().count("\n") == 1


def test_scores_are_written_and_a_broken_video_is_told(
    folder: Path, synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    for i, path in enumerate(sorted((synthetic_dir / "train").rglob("*.mp4"))):
        (videos / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, videos / "ab"[i % 2] / f"{i:02}.mp4")
    (videos / "a" / "04.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit) as end:
        main(words(videos, "--checkpoint", folder / "video", "--out", tmp_path / "out"))
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert "a/04.mp4: damaged" in printed.err
    assert "1 video couldn't be read" in printed.err
    with (tmp_path / "out" / "scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["videos"], row["classes"]) == ("23", "2")
    assert f"5-NN {100 * float(row['knn']):.1f} %" in printed.out
    found = read_npz(tmp_path / "out" / "features.npz")
    assert [Path(p).parent.name for p in found["paths"]] == ["ab"[i] for i in found["labels"]]
    page = (tmp_path / "out" / "index.html").read_text()
    data = json.loads(re.findall(r'<script id="data"[^>]*>(.*?)</script>', page)[0])
    assert data["paths"] == found["paths"].tolist()
    assert data["labels"] == found["labels"].tolist()


def test_a_model_that_sees_nothing_is_left_out(
    folder: Path, synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [synthetic_dir, "--limit", 12, "--method", "pca", "--out", tmp_path / "out"]
    for name, value in (("alike", 0.0), ("mad", 1e30)):
        model = small_model(synthetic_dir, tmp_path / "run")
        torch.nn.init.constant_(model.model.norm.weight, value)
        torch.nn.init.constant_(model.model.blocks[0].mlp.fc2.weight, value)
        save_pretrained(model, tmp_path / name)
    blind = ["--checkpoint", tmp_path / "alike", "--checkpoint", tmp_path / "mad"]
    with pytest.raises(SystemExit) as end:
        main(words(*given, *blind, "--checkpoint", folder / "video"))
    assert end.value.code == 1
    mad = "mad is left out: the model gives features that aren't finite"
    alike = "alike is left out: all videos have the same features"
    error, page = capsys.readouterr().err, (tmp_path / "out" / "index.html").read_text()
    for said in (mad, alike):
        assert f"error: {said}" in error
        assert said.replace("'", "&#x27;") in page
    assert read_npz(tmp_path / "out" / "features.npz")["checkpoints"].tolist() == ["video"]
    none = complaint_of(main, *words(*given, *blind))
    assert "mad: the model gives features" in none
    assert "alike: all videos have the same" in none


def test_a_run_is_what_it_was_tested_on(
    synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = small_cfg(synthetic_dir, tmp_path / "run")
    model = build_model(cfg)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = {"preprocessing": build_preprocessing(cfg, "test").to_json()}
    save_checkpoint(tmp_path / "run", model, optimizer, 0, cfg, **said)
    run = tmp_path / "run"
    main(words(run, "--checkpoint", run, "--out", tmp_path / "out", "--method", "pca"))
    printed = capsys.readouterr().out
    assert "run, test: 12 videos of 6 classes" in printed
    assert not (tmp_path / "out" / "tsne.png").exists()


def test_mistakes(folder: Path, synthetic_dir: Path, tmp_path: Path) -> None:
    given = ("--checkpoint", folder / "video", "--out", tmp_path, "--workers", 0)
    for more, said in (
        ((synthetic_dir, *given, "--limit", 4), "4 videos, and a picture needs at least 5"),
        ((synthetic_dir, *given, "--limit", 0), "--limit 0: must be 1 or more"),
        ((synthetic_dir, *given, "--seed", -1), "--seed -1"),
        ((synthetic_dir / "test.csv", *given, "--split", "val"), "is no folder"),
        ((tmp_path / "no.csv", *given), "no.csv: there is no such list, folder or run"),
        ((synthetic_dir, *given, "--sampling-rate", 8), "all weights say which frames they take"),
        ((synthetic_dir / "test", *given, "--prefix", "x"), "--prefix x: it is for lists"),
        ((synthetic_dir, "--checkpoint", folder / "." / "video", *given), "given twice"),
        ((synthetic_dir, *given, "--name", "a", "--name", "b"), "--name is given 2 times"),
        ((synthetic_dir, "--checkpoint", folder / "image.pth", *given[2:]), "convert"),
    ):
        complaint = complaint_of(main, *more)
        assert said in complaint
        assert complaint.count("\n") == 1
    broken = tmp_path / "broken"
    broken.mkdir()
    for i in range(5):
        (broken / f"{i}.mp4").write_bytes(b"x")
    assert "none of 5 videos can be read" in complaint_of(main, broken, *given)


def test_scikit_learn_is_missed_before_the_work(
    folder: Path, synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {f"timesformer.embed.{name}" for name in ("report", "scores", "projection")}
    for name in [*sys.modules]:
        if name in ours or name.split(".")[0] == "sklearn":
            monkeypatch.delitem(sys.modules, name)

    def find_spec(wanted: str, *_: object) -> None:
        if wanted == "sklearn":
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    given = ("--checkpoint", folder / "video", "--out", tmp_path / "out")
    assert "pip install 'timesformer[embed]'" in complaint_of(main, synthetic_dir, *given)
    assert not (tmp_path / "out").exists()
