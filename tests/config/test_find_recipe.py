"""`--cfg` by name: what is found, what wins, and what is said when nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.config import recipes
from timesformer.config.recipes import find_recipe, recipe_names, recipe_summary, recipes_dir
from timesformer.utils.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAME = "Kinetics/TimeSformer_divST_8x32_224"


def test_every_file_is_a_name_and_has_a_summary() -> None:
    assert recipes.RECIPES_DIR == CONFIGS
    assert [CONFIGS / f"{name}.yaml" for name in recipe_names()] == sorted(CONFIGS.rglob("*.yaml"))
    assert NAME in recipe_names()
    assert all(recipe_summary(name) for name in recipe_names())
    assert recipe_summary(NAME).startswith("TimeSformer (divided space-time attention) on Kin")


@pytest.mark.parametrize(
    "form",
    ["{}", "{}.yaml", "configs/{}", "configs/{}.yaml", "./configs/{}.yaml"],
)
def test_ways_to_write_a_name(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no configs/ is
    assert find_recipe(form.format(NAME)) == CONFIGS / f"{NAME}.yaml"


def test_a_file_that_exists_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("configs") / f"{NAME}.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("NUM_GPUS: 0\n")
    assert find_recipe(str(mine)) == mine
    assert find_recipe(NAME) == CONFIGS / f"{NAME}.yaml"
    Path("Kinetics").mkdir()  # a folder, or a name with another suffix, is no file
    assert find_recipe(NAME) == CONFIGS / f"{NAME}.yaml"
    Path(NAME).write_text("NUM_GPUS: 0\n")
    assert find_recipe(NAME) == Path(NAME)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Kinetics/TimeSformer_divST_8x32_244", f"; did you mean {NAME}?"),
        ("kinetics/timesformer_divst_8x32_224", f"; did you mean {NAME}?"),
        ("/nowhere/q.yaml", ""),
        ("", ""),
        ("../setup", ""),
        ("x" * 300, ""),
    ],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_recipe(name)
    said = (
        f"{name}: no such file or run's folder, and no recipe of that name (`timesformer recipes` "
    )
    assert str(caught.value) == f"{said}lists them){hint}"


def test_an_installed_package_has_its_own(tmp_path: Path) -> None:
    """In a checkout there is none in the package; building a wheel copies them into it."""
    package = tmp_path / "site-packages" / "timesformer"
    assert recipes_dir(package) == tmp_path / "site-packages" / "configs"
    (package / "configs").mkdir(parents=True)
    assert recipes_dir(package) == package / "configs"
    assert not (CONFIGS.parent / "timesformer" / "configs").exists()


def test_folders_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a folder, not a YAML file: give a recipe, or a run \("):
        find_recipe(tmp_path)
    (tmp_path / "my.yaml").touch()
    with pytest.raises(ConfigError, match=r"give a recipe, e\.g\. \S+/my\.yaml"):
        find_recipe(tmp_path)
    (tmp_path / "stats.jsonl").touch()
    with pytest.raises(ConfigError, match="a run that has no checkpoint yet"):
        find_recipe(tmp_path)
