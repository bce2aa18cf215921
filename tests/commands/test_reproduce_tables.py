"""`timesformer reproduce-tables`: the paper's costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.commands import reproduce_tables
from timesformer.models import paper_tables as tool


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters are those that the paper rounds, multiply-adds those of `timesformer profile`."""
    assert tool.cost("joint_space_time", 8, 224)[1] / 1e9 == pytest.approx(179.6, abs=0.05)
    monkeypatch.setattr(tool, "count_macs", lambda *_: 123_400_000_000)
    tool.cost.cache_clear()
    table = rows(tool.schemes_table())
    tool.cost.cache_clear()
    for scheme in tool.SCHEMES:
        paper, few, many, base, high = table[scheme.name][:5]
        assert f"{int(few.replace(',', '')) / 1e6:.1f}M" == paper
        assert int(many.replace(",", "")) - int(few.replace(",", "")) == 226 * 769
        assert base == high == "123.4"


def test_models() -> None:
    table = rows(tool.variants_table())
    for variant in tool.VARIANTS:
        clip, paper, ours = table[variant.name][:3]
        assert (clip, ours) == (f"{variant.frames}×{variant.side}²", paper)


def test_positions() -> None:
    table = rows(tool.positions_table())
    counts = {kind: int(table[kind][0].replace(",", "")) for kind, *_ in tool.POSITIONS}
    assert counts["space_time"] - counts["space"] == 8 * 768
    assert counts["space"] - counts["none"] == 197 * 768


def test_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "CLIPS", ((8, 224),))
    monkeypatch.setattr(tool, "count_macs", lambda *_: 10**11)
    tool.cost.cache_clear()
    reproduce_tables.main(["--output", str(tmp_path / "tables.txt")])
    text = (tmp_path / "tables.txt").read_text()
    assert capsys.readouterr().out == text
    tool.cost.cache_clear()
    assert "8×224²" in text
    assert "Positions (Table 4)" in text
