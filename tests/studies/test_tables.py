"""`timesformer reproduce --table`: the papers' costs, counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.commands import reproduce
from timesformer.studies import costs
from timesformer.studies.catalogue import clips, positions, schemes, variants


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


def test_the_list_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert {"schemes", "variants", "clips", "positions"} <= {
        line.split()[1] for line in lines if line.startswith("--table")
    }
    assert all(len(line.split()) > 3 for line in lines)
