"""What papers print of other models: the file, its table, its picture."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from matplotlib.text import Annotation, Text
from recipe_files import CONFIGS, ROOT, header

from timesformer.commands import reproduce
from timesformer.studies.catalogue.competitors import competitors_picture, competitors_table
from timesformer.studies.catalogue.variants import MODELS
from timesformer.studies.competitors import DATA_SETS, FILE, KINDS, Result, read_results
from timesformer.utils.errors import UserError

RESULTS = read_results()
OURS = {(r.data_set, r.model, r.pretraining): r for r in RESULTS if r.kind == "timesformer"}
# Recipes of models in the file, by what they are trained on.
RECIPES = {
    ("k400", "TimeSformer", "IN-21K"): "Kinetics/TimeSformer_divST_8x32_224",
    ("k400", "TimeSformer-HR", "IN-21K"): "Kinetics/TimeSformer_divST_16x16_448",
    ("k400", "TimeSformer-L", "IN-21K"): "Kinetics/TimeSformer_divST_96x4_224",
    ("k400", "TimeSformer (416 V100 hours)", "IN-1K"): "Kinetics/TimeSformer_divST_8x32_224_IN1K",
    ("k600", "TimeSformer", "IN-21K"): "Kinetics/TimeSformer_divST_8x32_224_K600",
    ("k600", "TimeSformer-HR", "IN-21K"): "Kinetics/TimeSformer_divST_16x16_448_K600",
    ("k600", "TimeSformer-L", "IN-21K"): "Kinetics/TimeSformer_divST_96x4_224_K600",
    ("ssv2", "TimeSformer", "IN-1K"): "SSv2/TimeSformer_divST_8_224_IN1K",
    ("ssv2", "TimeSformer-HR", "IN-1K"): "SSv2/TimeSformer_divST_16_448",
    ("ssv2", "TimeSformer-L", "IN-1K"): "SSv2/TimeSformer_divST_64_224",
    ("diving48", "TimeSformer", "IN-1K"): "Diving48/TimeSformer_divST_8x32_224",
    ("diving48", "TimeSformer-HR", "IN-1K"): "Diving48/TimeSformer_divST_16x16_448",
    ("diving48", "TimeSformer-L", "IN-1K"): "Diving48/TimeSformer_divST_96x4_224",
    **{
        ("howto100m", f"TimeSformer, {frames} frames", "IN-21K, K400"): (
            f"HowTo100M/TimeSformer_divST_{frames}x32_224"
        )
        for frames in (8, 32, 64, 96)
    },
}


def test_file_ships_with_the_package() -> None:
    patterns = re.search(r"package_data=\{.*?\[(.*?)\]", (ROOT / "setup.py").read_text())
    assert patterns
    found = [p for p in re.findall(r'"([^"]+)"', patterns[1]) if FILE.match(f"timesformer/{p}")]
    assert found == ["studies/*.csv"]


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: f"{r.data_set}: {r.model}, {r.source}")
def test_every_row_has_a_source_and_can_be(result: Result) -> None:
    assert result.data_set in DATA_SETS
    assert result.kind in KINDS
    assert (result.kind == "timesformer") == result.model.startswith("TimeSformer")
    assert re.fullmatch(r"\d{4}\.\d{5}", result.source)
    assert re.match(r"Table \d", result.table)
    assert 0 < result.top1 < (result.top5 or 100) <= 100
    assert 0.01 < (result.tflops or 1) < 150
    assert 1 < (result.parameters or 10) < 400
    assert re.fullmatch(r"(\d+×\d+|\d+ clips)?", result.views)


def test_no_row_stands_twice() -> None:
    keys = Counter((r.data_set, r.model, r.pretraining, r.views) for r in RESULTS)
    assert max(keys.values()) == 1, keys.most_common(1)


@pytest.mark.parametrize("key", RECIPES)
def test_numbers_of_recipes_are_those_of_the_file(key: tuple[str, str, str]) -> None:
    result, text = OURS[key], header(CONFIGS / f"{RECIPES[key]}.yaml")
    five = f", {result.top5:.1f} top-5" if result.top5 else ""
    assert f"Paper: {result.top1:.1f} top-1{five}" in text


def test_costs_of_the_three_models_are_those_of_their_table() -> None:
    for model in MODELS:
        result = OURS["k400", model.name, "IN-21K"]
        assert (f"{result.top1:.1f}", f"{result.tflops:.2f}") == (model.k400, model.tflops)


def test_one_data_set_or_all() -> None:
    text, some = competitors_table(), competitors_table("diving48")
    for name in DATA_SETS.values():
        assert text.count(f"{name}\n\nmodel") == 1
    assert DATA_SETS["diving48"] in some
    assert "Kinetics" not in some
    rows = [line for line in text.splitlines() if re.search(r"\d{4}\.\d{5}, Table", line)]
    assert len(rows) == len(RESULTS)


def test_every_cost_is_drawn_and_no_name_covers_another() -> None:
    figure = competitors_picture("k400")
    assert figure
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    names = [a for a in figure.axes[0].texts if isinstance(a, Annotation)]
    assert len(names) == sum(r.data_set == "k400" and r.tflops is not None for r in RESULTS)
    for name in names:
        name.update_positions(renderer)
    boxes = [Text.get_window_extent(name, renderer) for name in names]
    for at, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:at]), names[at].get_text()
    assert competitors_picture("diving48") is None


def test_table_and_picture_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--table", "competitors", "--out", str(tmp_path), "--data-set"]
    reproduce.main([*words, "ssv2"])
    assert (tmp_path / "competitors_ssv2.txt").read_text() == capsys.readouterr().out
    assert (tmp_path / "competitors_ssv2.png").read_bytes().startswith(b"\x89PNG")
    reproduce.main([*words, "howto100m"])
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"competitors_ssv2.txt", "competitors_ssv2.png", "competitors_howto100m.txt"}
    with pytest.raises(UserError, match="--table schemes isn't one of several data sets"):
        reproduce.main(["--table", "schemes", "--data-set", "k400"])
