"""setup.py: what the package imports is required, and what is required has an exact version."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import timesformer
from timesformer.datasets.video.torchcodec import LOWEST

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "timesformer").rglob("*.py"))


def plain(requirement: str) -> str:
    """The name of a distribution as pip compares it, without versions."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@cache
def owners() -> Mapping[str, list[str]]:
    """Names to import → distributions that have them; finding out takes a while."""
    return packages_distributions()


@pytest.fixture(scope="module")
def arguments() -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    import setuptools

    found: dict[str, Any] = {}
    original = setuptools.setup
    setuptools.setup = found.update
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
    return found


def imported(tree: ast.AST, everywhere: bool) -> set[str]:
    """Distributions that a file imports, at its top or in functions as well."""
    names = set()
    for node in ast.walk(tree) if everywhere else ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    others = names - sys.stdlib_module_names - {"timesformer"}
    return {plain(owners().get(name, [name])[0]) for name in others}


def test_imports_are_required(arguments: dict[str, Any]) -> None:
    required = {plain(r) for r in arguments["install_requires"]}
    extras = {name: {plain(r) for r in some} for name, some in arguments["extras_require"].items()}
    optional = extras["embed"] | extras["hub"] | extras["torchcodec"] | extras["openvino"]
    optional |= extras["onnx"] | {"onnx-ir"}  # which onnxscript is made with
    optional |= extras["cluster"] | extras["ray"] | extras["mteb"] | extras["remote"]
    optional |= extras["eightbit"]
    optional |= extras["serve"] | {"fastapi", "uvicorn"}  # which gradio is made with
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # Pictures and scores are extras; commands import these rooms only when they draw.
        rooms = {"visualization": "viz", "embed": "embed"}
        needed = required.union(*(extras[rooms[part]] for part in path.parts if part in rooms))
        missing = imported(tree, everywhere=False) - needed
        assert not missing, f"{path.relative_to(ROOT)}: setup.py doesn't require {missing}"
        missing = imported(tree, everywhere=True) - required - optional
        assert not missing, f"{path.relative_to(ROOT)}: no extra of setup.py has {missing}"


def test_requirements_are_pinned(arguments: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {plain(line) for line in lines if "==" in line}
    # Gradio wants an older pillow than the others have: it is for an environment of its own.
    extras = {k: some for k, some in arguments["extras_require"].items() if k != "serve"}
    named = [*arguments["install_requires"], *(name for some in extras.values() for name in some)]
    assert {plain(name) for name in named} <= pinned


def test_the_lowest_versions_are_the_bounds(arguments: dict[str, Any]) -> None:
    """What `make test-lowest` tests is what setup.py promises."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = {plain(line): line.partition("==")[2].strip() for line in lines if "==" in line}
    named = {*arguments["install_requires"], *arguments["extras_require"]["test"]}
    bounds = {plain(name): name.partition(">=")[2] for name in named}
    assert lowest.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", lowest[name]), name


def test_torchcodecs_bound_is_the_one_that_is_checked(arguments: dict[str, Any]) -> None:
    (bound,) = arguments["extras_require"]["torchcodec"]
    assert bound == f"torchcodec>={LOWEST[0]}.{LOWEST[1]}"


def test_version_and_entry_point(arguments: dict[str, Any]) -> None:
    assert arguments["version"] == timesformer.__version__ == "0.1.0"
    (script,) = arguments["entry_points"]["console_scripts"]
    name, _, place = script.partition(" = ")
    module, _, function = place.partition(":")
    assert name == "timesformer"
    assert callable(getattr(import_module(module), function))
    assert "timesformer.commands" in arguments["packages"]
    assert not [p for p in arguments["packages"] if p.split(".")[0] != "timesformer"]
