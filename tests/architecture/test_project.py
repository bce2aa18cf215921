"""What the repository promises as a whole."""

from __future__ import annotations

import json
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
    text = path.read_text()
    for call in ("weights_only=False", "pickle.load", "allow_pickle=True"):
        # An error message may warn of it; a call may not be made.
        assert not re.search(rf"\(.*{re.escape(call)}", text), call


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


def test_notebook_cells_compile():
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert cells
    for cell in cells:
        assert not cell["outputs"]
        compile("".join(cell["source"]), "cell", "exec")


def test_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0" in text
