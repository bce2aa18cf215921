"""docs/model_cards: every recipe has its row, and what the rows say is what the files build."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from recipe_files import header, load

from timesformer.__main__ import command_names
from timesformer.config.defaults import get_cfg
from timesformer.config.validate import check
from timesformer.datasets.build import build_preprocessing
from timesformer.models.architecture import Architecture
from timesformer.models.build import make_model
from timesformer.models.create import RECIPES
from timesformer.models.profiling import count_macs

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "model_cards"
PAGES = sorted(FOLDER.glob("*.md"), key=str)
CARDS = [page for page in PAGES if page.name != "README.md"]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"), key=str)
SECTIONS = ("Model", "Data", "Preprocessing", "Training and test", "Weights that fit", "Limits")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
RECIPE = re.compile(r"configs/[\w/]+\.yaml")


class Row(NamedTuple):
    """A recipe's row in the table of a card."""

    card: str
    recipe: str
    cells: dict[str, str]


def rows_of(page: Path) -> list[Row]:
    """The rows whose first cell links to a recipe, with cells under the names of their columns."""
    rows, columns = [], []
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if cells and cells[0] == "recipe":
            columns = cells
        elif cells and (found := RECIPE.search(cells[0])):
            assert len(cells) == len(columns), line
            rows.append(Row(page.name, found[0], dict(zip(columns, cells, strict=True))))
    return rows


ROWS = [row for card in CARDS for row in rows_of(card)]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.recipe)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)


def test_every_recipe_has_one_row() -> None:
    recipes = Counter(row.recipe for row in ROWS)
    assert recipes == Counter(str(path.relative_to(ROOT)) for path in CONFIGS)


def test_a_recipe_is_named_in_one_card_alone() -> None:
    cards = {(name, card.name) for card in CARDS for name in RECIPE.findall(card.read_text())}
    assert len({name for name, _ in cards}) == len(cards) == len(CONFIGS)


@each_row
def test_parameters(row: Row) -> None:
    with torch.device("meta"):
        model = make_model(load(row.recipe))
    assert row.cells["parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"


@each_row
def test_clip(row: Row) -> None:
    data = load(row.recipe).DATA
    frames = f"{data.NUM_FRAMES}×{data.SAMPLING_RATE}"
    if "/SSv2/" in row.recipe:  # spread over the whole video
        frames = f"{data.NUM_FRAMES} frames"
    assert row.cells["clip"] == f"{frames}, {data.TEST_CROP_SIZE}²"


@cache
def gmacs(
    model: str, scheme: str, tubelet: int, over_time: int, frames: int, crop: int, width: int,
    channels: float,
) -> float:  # fmt: skip
    """10⁹ multiply-adds of a view; the number of classes changes no digit that is shown."""
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.TIMESFORMER.ATTENTION_TYPE = model, scheme
    cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE = frames, crop
    cfg.TIMESFORMER.TUBELET_SIZE, cfg.TIMESFORMER.TEMPORAL_DEPTH = tubelet, over_time
    cfg.CNN.WIDTH = channels
    if channels < 1:  # Synthetic
        cfg.MODEL.NUM_CLASSES = 6
    if width == 64:  # Synthetic
        cfg.TIMESFORMER.EMBED_DIM, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.NUM_HEADS = 64, 4, 4
        cfg.MODEL.NUM_CLASSES = 6
    with torch.device("meta"):
        return count_macs(make_model(cfg), (3, frames, crop, crop)) / 1e9


def is_slow(row: Row) -> bool:
    """Tell whether it takes a second or more; tests/models/test_counts has the paper's numbers."""
    cfg = load(row.recipe)
    return cfg.TIMESFORMER.EMBED_DIM > 64 and cfg.CNN.WIDTH == 1


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, marks=pytest.mark.slow) if is_slow(r) else r for r in ROWS],
    ids=[row.recipe for row in ROWS],
)
def test_multiply_adds(row: Row) -> None:
    cfg = load(row.recipe)
    options, data = cfg.TIMESFORMER, cfg.DATA
    value = gmacs(
        cfg.MODEL.MODEL_NAME, options.ATTENTION_TYPE, options.TUBELET_SIZE, options.TEMPORAL_DEPTH,
        data.NUM_FRAMES, data.TEST_CROP_SIZE, options.EMBED_DIM, cfg.CNN.WIDTH,
    )  # fmt: skip
    assert row.cells["GMACs/view"] == (f"{value:.1f}" if value >= 1 else f"{value:.4f}")


@each_row
def test_numbers_of_others_are_those_of_the_file(row: Row) -> None:
    """A card copies the header of its recipe, and has no number that the header lacks."""
    column = next(name for name in row.cells if name.startswith(("paper", "reported")))
    text, value = header(row.recipe), row.cells[column]
    if found := re.search(r"(?:[Pp]aper|weights)[^:]*: ([\d.]+) top-1(?:, ([\d.]+) top-5)?", text):
        assert value == " / ".join(filter(None, found.groups()))
    elif found := re.search(r"Paper: ([\d.]+) points below .*?, which has ([\d.]+);", text):
        assert value == f"{found[2]} − {found[1]}"
    else:
        assert value == "none"


@pytest.mark.parametrize("row", [r for r in ROWS if r.card == "howto100m.md"])
def test_clips_of_the_long_task(row: Row) -> None:
    cfg = load(row.recipe)
    seconds = cfg.DATA.NUM_FRAMES * cfg.DATA.SAMPLING_RATE / cfg.DATA.TARGET_FPS
    assert row.cells["covers"] == f"{seconds:.1f} s"
    assert row.cells["test clips"] == str(cfg.TEST.NUM_ENSEMBLE_VIEWS)


@each_card
def test_says_what_was_measured_and_whose_weights_these_are(card: Path) -> None:
    text = card.read_text()
    assert "trained" in text
    assert "here.**" in text or "here**" in text or "numbers for it.**" in text
    assert "CC-BY-NC-4.0" in text
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert len(titles) == len(SECTIONS)
    assert all(a.startswith(b) for a, b in zip(titles, SECTIONS, strict=True)), titles
    assert 40 <= len(text.splitlines()) <= 80


@pytest.mark.parametrize("name", RECIPES)
def test_models_by_name_are_those_of_the_recipes(name: str) -> None:
    _, *middle, data = name.split("_")
    folder = "SSv2" if data == "SSv2" else "Kinetics"
    file = "_".join(["TimeSformer", *middle, *(["K600"] if data == "K600" else [])])
    cfg = load(f"configs/{folder}/{file}.yaml")
    assert RECIPES[name].architecture == Architecture.from_cfg(cfg)
    assert RECIPES[name].preprocessing == build_preprocessing(cfg, "test")
    assert RECIPES[name].labels == cfg.DATA.CLASS_NAMES


def test_published_weights_are_those_that_can_be_made() -> None:
    named = Counter(x for c in CARDS for x in re.findall(r"`(timesformer_\w+)`", c.read_text()))
    assert named == Counter(RECIPES.keys())


@each_card
def test_commands_can_be_run(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and recipes are there, keys exist, and the config is sound."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k400.pyth").touch()  # what commands call a checkpoint that readers have
    commands = re.findall(r"^```bash\n(.*?)^```$", card.read_text(), re.DOTALL | re.MULTILINE)
    assert commands
    for line in "".join(commands).replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        assert words[0] == "timesformer"
        assert words[1] in command_names(), words[1]
        if "--cfg" in words:
            at = words.index("--cfg")
            cfg = load(f"configs/{words[at + 1]}.yaml")
            cfg.merge_from_list(words[at + 2 :])
            check(cfg)


@each_page
def test_keys_exist(page: Path) -> None:
    known = {key for key, _ in get_cfg().leaves()}
    named = re.findall(r"`([A-Z]+\.[A-Z_]+)", page.read_text())
    assert set(named) <= known


def anchors(page: Path) -> set[str]:
    """What a page's headings can be linked by."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path), target


def test_index_has_every_card() -> None:
    links = Counter(LINK.findall((FOLDER / "README.md").read_text()))
    assert {card.name for card in CARDS} == {link for link in links if "/" not in link}
