"""The recipes that come with the package, by name: `Kinetics/TimeSformer_divST_8x32_224`."""

from __future__ import annotations

import os
import re
from itertools import takewhile
from pathlib import Path

from timesformer.utils.errors import ConfigError
from timesformer.utils.files import NOT_REGULAR, RUN_HOLDS, expand_home, is_file, is_folder
from timesformer.utils.text import did_you_mean

SUFFIX = ".yaml"
_PACKAGE = Path(__file__).resolve().parents[1]


def recipes_dir(package: Path) -> Path:
    """Return the recipes that belong to a package folder.

    In a checkout they lie beside the package, where people look for them; building a wheel copies
    them into it (setup.py).
    """
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


RECIPES_DIR = recipes_dir(_PACKAGE)


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted: a folder, a slash, a file without its suffix."""
    paths = RECIPES_DIR.rglob(f"*{SUFFIX}")
    return sorted(path.relative_to(RECIPES_DIR).with_suffix("").as_posix() for path in paths)


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Return the file that `--cfg NAME` means.

    Args:
        name: a file, which wins, or the name of a recipe: with or without `configs/` before it and
            `.yaml` behind it.

    Raises:
        ConfigError: it is neither; with the nearest name.
    """
    path = Path(expand_home(name))
    if is_file(path):
        return path
    if is_folder(path) and os.fspath(name).strip():
        raise ConfigError(f"{name}: {_what_folder(path)}")
    if os.path.exists(path) and os.fspath(name).strip():  # noqa: PTH110
        raise ConfigError(f"{name}: {NOT_REGULAR}")
    bare = os.fspath(name).removeprefix("./").removeprefix("configs/").removesuffix(SUFFIX)
    names = recipe_names()
    if bare not in names:
        raise ConfigError(
            f"{name}: no such file or run's folder, and no recipe of that name (`timesformer "
            f"recipes` lists them){did_you_mean(bare, names)}"
        )
    return RECIPES_DIR / f"{bare}{SUFFIX}"


def _what_folder(path: Path) -> str:
    """Say of a folder that isn't a run's, or has no checkpoint yet, what to give instead."""
    if is_file(path / "stats.jsonl"):
        return "a run that has no checkpoint yet, which would say its config: give the recipe"
    inside = sorted(path.glob(f"*{SUFFIX}"))
    hint = f", e.g. {inside[0]}" if inside else ""
    return f"a folder, not a YAML file: give a recipe{hint}, or a run ({RUN_HOLDS})"


def recipe_summary(name: str) -> str:
    """Return the first sentence of the comment at the top of a recipe; "" if it has none."""
    text = (RECIPES_DIR / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=\.)\s", words, maxsplit=1)[0]
