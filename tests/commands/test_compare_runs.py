"""`timesformer compare-runs` on runs of a few seconds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_run import small_cfg

from timesformer.commands.compare_runs import main
from timesformer.engine.evaluate import test as run_test
from timesformer.engine.runs import read_run, read_stats, validation_of, validations
from timesformer.engine.train import train
from timesformer.utils.errors import UserError


@pytest.fixture(scope="module")
def runs(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("joint_space_time", "axial"):
        cfg = small_cfg(
            synthetic_dir, folder / name, SOLVER__MAX_EPOCH=1, TIMESFORMER__ATTENTION_TYPE=name
        )
        train(cfg)
        if name == "axial":
            run_test(cfg)
    return [folder / "joint_space_time", folder / "axial"]


def test_table_and_picture(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*map(str, runs), "--plot", str(tmp_path / "runs.png")])
    header, joint, axial = capsys.readouterr().out.splitlines()[:3]
    assert header.split()[:4] == ["run", "model", "params", "GMACs/clip"]
    assert joint.split()[:2] == ["joint_space_time", "joint_space_time"]
    assert "ms" in joint
    assert joint.split()[-3:] == ["-", "-", "-"]  # not tested
    assert axial.split()[-1] == "1x3"
    assert float(axial.split()[3]) > float(joint.split()[3]) > 0
    with Image.open(tmp_path / "runs.png") as image:
        assert image.width == 1210


def test_runs_that_were_not_tested_alike(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(runs[1], tmp_path / "other")
    main([str(runs[1]), str(other)])
    assert "not tested alike" not in capsys.readouterr().out
    path = other / "stats.jsonl"
    path.write_text(path.read_text().replace('"videos": 12', '"videos": 1200'))
    main([str(runs[1]), str(other), "--plot", str(tmp_path / "runs.png")])
    _, one, two, warning = capsys.readouterr().out.splitlines()[:4]
    assert re.search(r"synthetic \S+, 12 ", one)
    assert re.search(r"synthetic \S+, 1,200 ", two)
    assert warning == "- not tested alike (test videos differ): top-1 can't be compared"


def test_mistakes(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="none of these folders is a run"):
        main([str(tmp_path)])
    capsys.readouterr()
    main([str(tmp_path), str(runs[1])])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split()[0] == "axial"
    assert "skipped: " in printed.err
    assert "not a run; a run's folder holds stats.jsonl, run.log and checkpoints/" in printed.err
    with pytest.raises(UserError, match="none of the runs has been tested"):
        main([str(runs[0]), "--plot", str(tmp_path / "x.png")])


def test_the_validation_of_the_tested_checkpoint() -> None:
    vals = {f"{i}": {"top1_acc": acc} for i, acc in enumerate((16.7, 25.0, 25.0, 20.0), 1)}
    for name, acc in (("checkpoint_best", 25.0), ("checkpoint_epoch_00001", 16.7)):
        assert validation_of(f"runs/a/checkpoints/{name}.pyth", vals) == {"top1_acc": acc}
    assert validation_of("elsewhere.pyth", vals) == {}


def test_lines_that_no_run_writes_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_text(
        '{"split": "start"}\nnull\n{"split": "tr{"split": "val"}\n{"split": "val"}\n{"a'
    )
    assert read_stats(tmp_path) == [{"split": "start"}, {"split": "val"}]
    assert re.findall(r"stats\.jsonl, line (\d): .* left out, as are 1 more", caplog.text) == ["2"]
    path.write_text("Not of a run\n")
    with pytest.raises(UserError, match=r"stats\.jsonl, line 1: not JSON"):
        read_stats(tmp_path)


def test_what_a_folder_has_of_a_former_run_is_not_told(tmp_path: Path) -> None:
    def lines(resumed: bool, *accuracies: float) -> list[dict[str, Any]]:
        vals = [
            {"split": "val", "epoch": f"{i}/9", "top1_acc": acc}
            for i, acc in enumerate(accuracies, 1)
        ]
        return [{"split": "start", "resumed": resumed}, *vals]

    test = {"split": "test_final", "top1_acc": 90.0, "checkpoint": "checkpoint_best.pyth"}
    former, ours = [*lines(False, 50.0, 80.0), test], lines(False, 60.0, 40.0)
    stats = [*former, *ours, *lines(True, 60.0, 70.0)]
    text = "\n".join(map(json.dumps, stats))
    (tmp_path / "stats.jsonl").write_text(text, encoding="utf-8")
    assert read_run(tmp_path).cells[7:9] == ("70.0 %", "-")
    assert {k: v["top1_acc"] for k, v in validations(read_stats(tmp_path)).items()} == {
        "1": 60.0,
        "2": 70.0,
    }


@pytest.mark.parametrize(
    "line",
    [
        '{"split": []}',
        '{"split": "train_epoch"}',
        '{"split": "val", "top1_acc": "x"}',
        "[" * 100_000,
        '{"params": ' + "1" * 5000 + "}",
    ],
    ids=range(5),
)
def test_lines_that_no_run_writes(line: str, tmp_path: Path) -> None:
    (tmp_path / "stats.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"stats\.jsonl"):
        read_run(tmp_path)
