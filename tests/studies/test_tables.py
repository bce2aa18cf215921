"""`timesformer reproduce --table`: the papers' costs, counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.commands import reproduce
from timesformer.models.timing import Timing
from timesformer.studies import costs
from timesformer.studies.catalogue import clips, cost, positions, schemes, variants
from timesformer.studies.competitors import results_on
from timesformer.utils.errors import UserError


def rows(text: str) -> dict[str, list[str]]:
    table = text.partition("\n\n")[0]
    return {line.split()[0]: line.split()[1:] for line in table.splitlines()}


@pytest.fixture
def macs(monkeypatch: pytest.MonkeyPatch):
    """Multiply-adds are not counted but 123.4 G for all."""
    monkeypatch.setattr(costs, "count_macs", lambda *_: 123_400_000_000)
    costs.cost.cache_clear()
    yield
    costs.cost.cache_clear()


def test_multiply_adds() -> None:
    assert costs.cost("joint_space_time", 8, 224)[1] / 1e9 == pytest.approx(179.6, abs=0.05)


@pytest.mark.usefixtures("macs")
def test_schemes() -> None:
    """Parameters are those that the paper rounds."""
    table = rows(schemes.schemes_table())
    for scheme in schemes.SCHEMES:
        paper, few, many, base, high = table[scheme.name][:5]
        assert f"{int(few.replace(',', '')) / 1e6:.1f}M" == paper
        assert int(many.replace(",", "")) - int(few.replace(",", "")) == 226 * 769
        assert base == high == "123.4"


def test_variants() -> None:
    table = rows(variants.variants_table())
    for model in variants.MODELS:
        clip, paper, ours = table[model.name][:3]
        assert (clip, ours) == (f"{model.frames}×{model.side}²", paper)


def test_positions() -> None:
    table = rows(positions.positions_table())
    counts = {p.kind: int(table[p.kind][0].replace(",", "")) for p in positions.POSITIONS}
    assert counts["space_time"] - counts["space"] == 8 * 768
    assert counts["space"] - counts["none"] == 197 * 768


@pytest.mark.usefixtures("macs")
def test_a_table_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clips, "CLIPS", ((8, 224),))
    reproduce.main(["--table", "clips", "--out", str(tmp_path)])
    text = (tmp_path / "clips.txt").read_text()
    assert capsys.readouterr().out == text
    assert rows(text)["8×224²"] == ["123", "123", "123", "123", "1.00"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--figure", "schemes", "--data-set", "k400"), "--data-set: is for a --table"),
        (("--table", "schemes", "--data", "kinetics"), "--data: is for a --figure"),
        (("--table", "schemes", "--seeds", "1"), "--seeds: is for a --figure"),
        (("--table", "schemes", "--dry-run"), "--dry-run: is for a --figure"),
        (("--table", "schemes", "NUM_GPUS", "0"), "NUM_GPUS: KEY VALUE pairs are for the runs"),
        (("--list", "--jobs", "2"), "--jobs: is for a --figure"),
        (("--list", "--out", "x"), "--out: --list writes no files"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        reproduce.main(words)


def test_the_list_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert {"schemes", "variants", "clips", "positions"} <= {
        line.split()[1] for line in lines if line.startswith("--table")
    }
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(
    "models", [cost.MODELS[::3], pytest.param(cost.MODELS, marks=pytest.mark.slow)]
)
def test_cost_of_testing(models: tuple[cost.Tested, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the seconds: those of a pass are said to be 0.5, of which two fit."""
    asked = []

    def half_a_second(model: object, view: tuple[int, ...], **options: object) -> Timing:
        asked.append((type(model).__name__, view, options["device"]))
        return Timing((0.5, 0.5), (0.25, 0.25), 1, "CPU", 2)

    monkeypatch.setattr(cost, "MODELS", models)
    monkeypatch.setattr(cost, "time_views", half_a_second)
    monkeypatch.setattr(cost, "make_model", cost.meta_model)  # no memory
    monkeypatch.setattr(cost, "check_memory", lambda *_, **__: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = cost.cost_table()
    names = [model.name for model in cost.MODELS]
    lines = {n: next(x for x in text.splitlines() if x.startswith(f"{n}  ")) for n in names}
    for model in cost.MODELS:
        cells = lines[model.name].removeprefix(model.name).split()
        assert cells[1] == f"{model.clips}×3"
        if model.tflops != "–":
            assert cells[3] == cells[4] == model.tflops  # the paper's are ours
        assert cells[5:8] == ["0.5", "0.25", "2"]
        assert cells[8] == f"{100 * 3 * model.clips * 0.5:,.0f}"
    assert ("ResNet3d", (3, 32, 256, 256), "cpu") in asked
    assert "(CPU, 2 threads)" in text


def test_cost_repeats_what_the_list_of_competitors_has() -> None:
    """Table 2 stands in one more place: they mustn't differ."""
    known = {r.model: r for r in results_on(["k400"])["k400"] if r.table == "Table 2"}
    for model in cost.MODELS:
        if model.hours != "–":
            row = known[next(n for n in known if n.endswith(f"({model.hours} V100 hours)"))]
            assert row.model.startswith(model.name)
            assert (float(model.tflops), float(model.k400.split()[0])) == (row.tflops, row.top1)
