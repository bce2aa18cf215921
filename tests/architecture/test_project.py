"""What the repository promises as a whole."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from timesformer.__main__ import command_names
from timesformer.config.recipes import find_recipe

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for d in ("timesformer", "tools") for p in (ROOT / d).rglob("*.py")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
CARDS = sorted((ROOT / "docs" / "model_cards").glob("*.md"))
PUBLISHED = [
    *(f"Kinetics/TimeSformer_{name}" for name in (
        "divST_8x32_224", "divST_8x32_224_4gpus", "divST_8x32_224_TEST", "divST_16x16_448",
        "divST_96x4_224", "jointST_8x32_224", "spaceOnly_8x32_224",
    )),
    *(f"SSv2/TimeSformer_{name}" for name in ("divST_8_224", "divST_16_448", "divST_64_224")),
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_are_there(name):
    assert (ROOT / "configs" / f"{name}.yaml").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unpickles_code(path):
    assert not unpickling(ast.parse(path.read_text()))


def unpickling(tree: ast.AST) -> list[str]:
    """Calls that run code in a file; an error message may warn of them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in ("pickle.load", "pickle.loads") or (
                given.get("weights_only", "True") != "True"
                or given.get("allow_pickle", "False") != "False"
            ):
                found.append(name)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(path,\n    weights_only=\n    False)",
        "pickle.loads(data)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_unpickling_is_seen(text):
    assert unpickling(ast.parse(text))
    assert not unpickling(ast.parse(f"print({text!r})"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda p: p.name)
def test_commands_on_pages_are_there(page):
    for command, words in re.findall(
        r"^(?:\$ )?timesformer ([a-z]\S*)(.*)", page.read_text(), re.M
    ):
        assert command in command_names(), f"{page.name}: timesformer {command}"
        for recipe in re.findall(r"--cfg ([A-Za-z]\S*/\S+)", words):
            assert find_recipe(recipe)


def test_class_names_are_shipped():
    folder = ROOT / "timesformer" / "datasets" / "labels"
    names = (folder / "kinetics400.txt").read_text().splitlines()
    assert (names[0], names[399], len(names)) == ("abseiling", "zumba", 400)
    assert len((folder / "ssv2.txt").read_text().splitlines()) == 174


def test_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0" in text


def test_what_tests_ask_for_they_use():
    """A fixture that is wanted for what it does, not for what it gives, is in `usefixtures`."""
    idle = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            if not node.name.startswith("test_"):
                continue
            asked = {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)} - {"self"}
            used = {n.id for part in node.body for n in ast.walk(part) if isinstance(n, ast.Name)}
            idle += [f"{path.relative_to(ROOT)}: {node.name}({name})" for name in asked - used]
    assert idle == []
