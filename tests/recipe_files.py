"""Recipes as tests read them: the merged config, and the comment at the top."""

from __future__ import annotations

import re
from pathlib import Path

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def load(path: str | Path) -> CfgNode:
    """The config of a recipe, not checked; a path that isn't absolute starts at the checkout."""
    cfg = get_cfg()
    cfg.merge_from_file(ROOT / path)
    return cfg


def header(path: str | Path) -> str:
    """The comment at its top, in one line."""
    found = re.match(r"(#.*\n)+", (ROOT / path).read_text(encoding="utf-8"))
    assert found
    return " ".join(found[0].replace("#", "").split())
