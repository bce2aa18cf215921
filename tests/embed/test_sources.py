"""Which videos are meant by a list, a folder or a run, and what they are called."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from small_run import small_cfg

from timesformer.datasets.lists.records import Records
from timesformer.embed.names import check_names, names_of
from timesformer.embed.sources import chosen, of_folder, of_list, of_run
from timesformer.utils.errors import AnnotationError, ConfigError, UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_list_beside_its_videos(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = of_list(synthetic_dir / "test.csv")
    assert len(found.records) == 12
    assert all(Path(record.path).is_file() for record in found.records)
    assert found.names[0] == "moving left"
    assert found.described(found.labels) == "12 videos of 6 classes"
    elsewhere = of_list(synthetic_dir / "test.csv", prefix="/elsewhere")
    assert elsewhere.records[0].path.startswith("/elsewhere/")


def test_labels_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a.mp4 3\nb.mp4 0\n")
    found = of_list(tmp_path / "x.csv")
    assert found.names == ["class 0", "class 1", "class 2", "class 3"]
    (tmp_path / "names.txt").write_text("eat\nsleep\n")
    with pytest.raises(AnnotationError, match=r"line 1.*0\.\.1"):
        of_list(tmp_path / "x.csv", str(tmp_path / "names.txt"))
    (tmp_path / "y.csv").write_text("a.mp4 sleep\n")
    assert of_list(tmp_path / "y.csv", str(tmp_path / "names.txt")).labels.tolist() == [1]
    with pytest.raises(AnnotationError, match="set --class-names"):
        of_list(tmp_path / "y.csv")


def test_folders(tmp_path: Path, synthetic_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "test/b/2.mp4", "test/a/1.mp4", "train/a/3.mp4", "plain/y.mp4", "plain/x.MP4")
    found = of_folder(tmp_path)
    assert [Path(r.path).name for r in found.records] == ["1.mp4", "2.mp4"]
    assert (found.labels.tolist(), found.names, found.labelled) == ([0, 1], ["a", "b"], True)
    assert len(of_folder(tmp_path, "train").records) == 1
    assert not caplog.messages
    touch(tmp_path, "test/loose.mp4")
    assert len(of_folder(tmp_path).records) == 2
    assert "1 video beside the folders of classes left out" in caplog.text
    plain = of_folder(tmp_path / "plain")
    assert [Path(r.path).name for r in plain.records] == ["x.MP4", "y.mp4"]
    assert (plain.labelled, plain.names) == (False, [])
    assert len(of_folder(synthetic_dir).records) == 12
    assert len(of_folder(synthetic_dir, "val").records) == 6
    with pytest.raises(UserError, match=r"neither val\.csv nor"):
        of_folder(tmp_path, "val")
    touch(tmp_path, "names.txt", "none/readme.md")
    (tmp_path / "names.txt").write_text("b\na\n")
    named = of_folder(tmp_path, "test", str(tmp_path / "names.txt"))
    assert [(r.label, Path(r.path).name) for r in named.records] == [(0, "2.mp4"), (1, "1.mp4")]
    (tmp_path / "names.txt").write_text("b\n")
    with pytest.raises(ConfigError, match="has no 'a'"):
        of_folder(tmp_path, "test", str(tmp_path / "names.txt"))
    with pytest.raises(UserError, match="--prefix x: it is for lists"):
        of_folder(tmp_path, prefix="x")
    with pytest.raises(UserError, match="no folders of classes"):
        of_folder(tmp_path / "plain", class_names="ssv2")
    with pytest.raises(UserError, match="no videos"):
        of_folder(tmp_path / "none")


def test_a_run(synthetic_dir: Path, tmp_path: Path) -> None:
    cfg = small_cfg(synthetic_dir, tmp_path)
    assert len(of_run(cfg, tmp_path).records) == 12
    assert len(of_run(cfg, tmp_path, "val").records) == 6
    (tmp_path / "val.csv").write_text("a.mp4 0\n")
    (tmp_path / "classes.txt").write_text("\n".join("abcdef"))
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)
    assert of_run(cfg, tmp_path).source.endswith(", val")
    with pytest.raises(AnnotationError, match=r"test\.csv"):
        of_run(cfg, tmp_path, "test")


def test_a_choice_keeps_shares_and_grows() -> None:
    records = Records()
    for i in range(40):
        records.append(f"{i}.mp4", int(i % 4 == 0))
    few, more = chosen(records, 8), chosen(records, 20)
    assert Counter(records[i].label for i in few) == {0: 6, 1: 2}
    assert Counter(records[i].label for i in more) == {0: 15, 1: 5}
    assert {*few} < {*more}
    assert few == sorted(few)


def test_a_choice_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").mkdir()
    found = []
    for start, prefix in ((".", "videos/"), ("videos", ""), (".", f"{tmp_path}/videos/")):
        monkeypatch.chdir(tmp_path / start)
        records = Records()
        for i in range(40):
            records.append(f"{prefix}{i % 3}/{i}.mp4", i % 4)
        found.append(chosen(records, 8))
    assert found[0] == found[1] == found[2]


def test_names_of_weights() -> None:
    assert names_of(["timm/vit_base_patch16_224.augreg_in21k", "a/x.pyth"]) == [
        *("vit_base_patch16_224.augreg_in21k", "x")
    ]
    assert names_of(["a/run", "b/run"]) == ["a/run", "b/run"]
    run = ["runs/one/checkpoints/checkpoint_epoch_00003.pyth", "runs/two"]
    assert names_of(run) == ["one/checkpoint_epoch_00003", "two"]
    assert names_of(["hf/model.pth"]) == ["hf/model"]
    assert names_of(["x" * 5000, ""]) == ["x" * 5000, ""]
    for names, sources, said in (
        (["x"], ["a", "b"], "--name is given 1 times"),
        (["x", "x"], ["a", "b"], "a name of its own"),
        (["x", "y"], ["a", "a"], "given twice"),
    ):
        with pytest.raises(UserError, match=said):
            check_names(names, sources)
