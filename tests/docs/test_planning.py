"""The table of docs/cluster.md is what benchmarks/planning.py prints."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["planning.py"])
    runpy.run_path(str(ROOT / "benchmarks" / "planning.py"), run_name="__main__")
    assert f"```\n{capsys.readouterr().out}```\n" in (ROOT / "docs" / "cluster.md").read_text()
