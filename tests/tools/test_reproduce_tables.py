"""tools/reproduce_tables.py: the paper's costs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from small_run import ROOT

tool = runpy.run_path(str(ROOT / "tools" / "reproduce_tables.py"))


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_schemes() -> None:
    """Parameters are those that the paper rounds, multiply-adds those of profile_model.py."""
    table = rows(tool["schemes_table"]())
    for scheme in tool["SCHEMES"]:
        paper, few, many = table[scheme.name][:3]
        assert f"{int(few.replace(',', '')) / 1e6:.1f}M" == paper
        assert int(many.replace(",", "")) - int(few.replace(",", "")) == 226 * 769
    assert table["divided_space_time"][3:5] == ["195.8", "1,702.7"]
    assert table["joint_space_time"][3] == "179.6"
    assert table["space_only"][3] == "140.5"


def test_models() -> None:
    table = rows(tool["variants_table"]())
    for variant in tool["VARIANTS"]:
        clip, paper, ours = table[variant.name][:3]
        assert (clip, ours) == (f"{variant.frames}×{variant.side}²", paper)


def test_positions() -> None:
    table = rows(tool["positions_table"]())
    counts = {kind: int(table[kind][0].replace(",", "")) for kind, *_ in tool["POSITIONS"]}
    assert counts["space_time"] - counts["space"] == 8 * 768
    assert counts["space"] - counts["none"] == 197 * 768


def test_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tool["main"].__globals__, "CLIPS", ((8, 224),))
    tool["main"](["--output", str(tmp_path / "tables.txt")])
    text = (tmp_path / "tables.txt").read_text()
    assert capsys.readouterr().out == text
    assert "8×224²" in text
    assert "0.92" in text  # joint / divided
