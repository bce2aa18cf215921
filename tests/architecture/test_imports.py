"""Imports point one way: tools → engine → {models, datasets} → config, utils."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "timesformer").rglob("*.py"))
MAY_IMPORT = {
    "engine": {"models", "datasets", "visualization", "config", "utils"},
    "models": {"config", "utils"},
    "datasets": {"config", "utils"},
    "visualization": {"datasets", "utils"},
    "config": {"utils.errors"},
    "utils": set(),
    "utils.parser": {"config"},
}


def imported(tree: ast.AST) -> set[str]:
    """Every module of the package or of tools/ that a file names, `timesformer.` left out."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where they point"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("timesformer", "tools")}
    return {name.removeprefix("timesformer.") for name in ours}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    room = path.relative_to(ROOT / "timesformer").with_suffix("").parts
    found = imported(ast.parse(path.read_text()))
    allowed = {room[0]} | MAY_IMPORT.get(room[0], set()) | MAY_IMPORT.get(".".join(room), set())
    wrong = {n for n in found if not any(f"{n}.".startswith(f"{a}.") for a in allowed)}
    assert not wrong, f"{path.relative_to(ROOT)} may import {sorted(allowed)}, not {wrong}"


def test_the_model_needs_no_video_or_plotting_library() -> None:
    program = (
        "import sys, timesformer.models.vit; "
        "print(*{'av', 'cv2', 'tensorboard', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
