"""The videos that a sweep needs are made, and others aren't taken for them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from timesformer.__main__ import dispatch
from timesformer.prepare.synthetic_writer import SyntheticSpec
from timesformer.studies import preparation
from timesformer.studies.preparation import make_data
from timesformer.utils.errors import UserError
from timesformer.utils.errors import run_tool as call_tool

SPEC = SyntheticSpec(seed=1, train=4, val=16, test=16, kind="static")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command starts no process, which imports for seconds what is here already."""

    def run(words: list[str], check: bool) -> SimpleNamespace:
        assert words[:3] == [sys.executable, "-m", "timesformer"]
        try:
            call_tool(lambda: dispatch(words[3:]))
        except SystemExit as end:
            return SimpleNamespace(returncode=end.code)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(preparation.subprocess, "run", run)


def plan_on(folder: Path, spec: SyntheticSpec | None) -> Any:
    cfg = SimpleNamespace(DATA=SimpleNamespace(PATH_TO_DATA_DIR=str(folder)))
    return SimpleNamespace(runs={"a": SimpleNamespace(cfg=cfg, data=SimpleNamespace(make=spec))})


def test_what_is_missing_is_made_and_what_is_there_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(plan_on(tmp_path / "none", None))
    assert not (tmp_path / "none").exists()
    make_data(plan_on(tmp_path / "x", SPEC))
    assert len(list((tmp_path / "x").rglob("*.mp4"))) == 36
    assert (tmp_path / "x" / SPEC.path("test", 5)).is_file()
    monkeypatch.setattr(preparation.subprocess, "run", None)
    make_data(plan_on(tmp_path / "x", SPEC))
    other = SyntheticSpec(seed=1, train=4, val=16, test=16, kind="temporal")
    with pytest.raises(UserError, match=r"holds videos made with kind .*static.*: move it away"):
        make_data(plan_on(tmp_path / "x", other))
    (tmp_path / "x" / "classes.txt").unlink()  # half made, for something else
    with pytest.raises(UserError, match="move it away"):
        make_data(plan_on(tmp_path / "x", other))
    (tmp_path / "x" / "classes.txt").touch()
    (tmp_path / "x" / "synthetic.json").unlink()
    with pytest.raises(UserError, match="isn't empty: move it away"):
        make_data(plan_on(tmp_path / "x", SPEC))


def test_what_can_t_be_made(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="can't be made"):
        make_data(plan_on(tmp_path / "x", SPEC))
