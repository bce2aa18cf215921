"""Notebooks of examples/: their cells run, one after the other, as in Jupyter."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_run import small_model

from timesformer.__main__ import dispatch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# What a reader would wait or need the internet for.
SHORT = {
    "run": ["SOLVER.MAX_EPOCH", "1", "LOG_PERIOD", "1000"],
    "predict": ["--workers", "0"],
    "make-synthetic": ["--train", "48", "--val", "6", "--test", "12", "--processes", "1"],
}
OFFLINE = ["TIMESFORMER.PRETRAINED_MODEL", "", "TIMESFORMER.INIT", "scratch"]
SMALL = ["DATA.TRAIN_CROP_SIZE", "48", "DATA.TEST_CROP_SIZE", "48", "DATA.TRAIN_JITTER_SCALES"]
SMALL += ["[48, 56]", "DATA_LOADER.NUM_WORKERS", "0"]


def cells_of(path: Path) -> list[str]:
    """Its code; a line with ! is a call of `shell`, which IPython makes of it likewise."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    sources = ["".join(cell["source"]).replace("\\\n", "") for cell in cells]
    return [
        re.sub(r"^( *)!(.*)$", lambda m: f"{m[1]}shell({m[2]!r})", source, flags=re.MULTILINE)
        for source in sources
    ]


def shell(line: str) -> None:
    """Run a command of ours in this process."""
    program, command, *words = shlex.split(line)
    assert program == "timesformer"
    more = SHORT.get(command, [])
    if any("Finetune" in word for word in words):
        more = [*more, *OFFLINE, *SMALL]
    dispatch([command, *words, *more])


def run(path: Path) -> dict[str, Any]:
    """Run its cells in the current folder; return what they leave, and what each of them shows."""
    names: dict[str, Any] = {"shell": shell, "__name__": "__main__"}
    shown = []
    for source in cells_of(path):
        tree = ast.parse(source)
        last = tree.body[-1]
        value = isinstance(last, ast.Expr)
        body = tree.body[:-1] if value else tree.body
        exec(compile(ast.Module(body, []), path.name, "exec"), names)
        if value:
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
            if isinstance(shown[-1], Image.Image):
                shown[-1].load()  # as Jupyter does to show it; its file is closed then
    return names | {"shown": shown}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_cells_compile(path: Path) -> None:
    cells = cells_of(path)
    assert cells
    for source in cells:
        compile(source, "cell", "exec")


def test_predict(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With a model that is there already, as after the demo."""
    model = small_model(synthetic_dir, tmp_path / "run")
    model.class_names = ("up", "down", "left", "right", "in", "out")
    model.save_pretrained(tmp_path / "runs" / "synthetic" / "divided")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "synthetic").symlink_to(synthetic_dir)
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES / "predict.ipynb")
    _, top, strip, guess = [value for value in names["shown"] if value is not None]
    assert len(top) == 3
    assert strip.size == (4 * 64, 64)
    assert guess.name in model.class_names
    assert "broken.mp4 damaged, or not a video" in capsys.readouterr().out
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 12


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_all_of_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing; with less training than a reader's."""
    monkeypatch.chdir(tmp_path)
    names = run(path)
    if path.name == "your_own_clips.ipynb":
        assert {name for name, _ in names["shown"][-1]} == {"falling", "rising", "crossing"}
