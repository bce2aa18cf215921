"""A figure of runs that are trained, tested, drawn, and not done again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from small_run import SMALL

from timesformer.commands import reproduce
from timesformer.studies.study import DATA, Data, Recipe, Study, Variant

SCHEME = "TIMESFORMER.ATTENTION_TYPE"


def variants(data: Data) -> list[Variant]:
    image = Recipe(data.recipe, {SCHEME: "space_only", "DATA.NUM_FRAMES": 1}, seed=0)
    start = {"TIMESFORMER.PRETRAINED_MODEL": image, "TIMESFORMER.INIT": "image"}
    clips = {"TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": data.with_keys({})}
    clips |= {"TEST.NUM_ENSEMBLE_VIEWS": 2, "DATA.TEST_CLIP_SAMPLING": "uniform"}
    return [
        Variant("fresh", data.with_keys({}), x=1),
        Variant("from an image model", data.with_keys(start), x=2),
        Variant("two clips", data.with_keys(clips), x=3, clips=2),
    ]


@pytest.mark.slow
def test_a_sweep(
    synthetic_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = Data("small", "Synthetic", "Synthetic/TimeSformer_divST_8_64", "K400")
    monkeypatch.setattr(reproduce, "DATA", {**DATA, "ssv2": (data,)})
    monkeypatch.setattr(reproduce, "find", lambda *_: lambda: Study("Small", variants, "x"))
    settings = SMALL | {"DATA.PATH_TO_DATA_DIR": synthetic_dir, "SOLVER.MAX_EPOCH": 1}
    del settings["DATA.NUM_FRAMES"]
    pairs = [str(word) for pair in settings.items() for word in pair]
    words = ["--figure", "small", "--data", "ssv2", "--seeds", "1", "--jobs", "2", "--resume"]
    words += ["--out", str(tmp_path)]
    reproduce.main([*words, *pairs])
    with (tmp_path / "small_ssv2.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["n_seeds"] for row in rows] == ["1", "1", "1"]
    assert "small: 4 runs, 4 to do" in capsys.readouterr().out
    logs = [(tmp_path / "runs" / row["runs"] / "output.txt").read_text() for row in rows]
    assert "training from fresh weights" in logs[0]
    assert "loaded" in logs[1]
    assert f"testing {tmp_path / 'runs' / rows[0]['runs']}" in logs[2]
    before = (tmp_path / "small_ssv2.csv").read_bytes()
    reproduce.main([*words, *pairs])
    assert "small: 4 runs, 4 complete, 0 to do" in capsys.readouterr().out
    assert (tmp_path / "small_ssv2.csv").read_bytes() == before
