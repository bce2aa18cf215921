"""No knob that lies: every key of the schema is read by some module, and no other key is named."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.models.architecture import Architecture

ROOT = Path(__file__).resolve().parents[2]
KEYS = dict(get_cfg().leaves())
# Used by files of config/ (layout, fewer_tokens, multigrid), which training and loaders call.
IN_CONFIG = {"TEST.BATCH_SIZE", "TRAIN.FULL_EPOCHS", "TRAIN.MULTIGRID_CYCLES"}
# A knob of the model is read through `Architecture`; its model's name is for the registry.
KNOBS = {f.metadata["key"]: f.name for f in fields(Architecture) if f.name != "model"}
NETWORKS = (  # that have all knobs
    "network/vision_transformer.py",
    "others/factorised_encoder.py",
    "others/slowfast.py",
)
NAMES = {
    node.id
    for network in NETWORKS
    for node in ast.walk(ast.parse((ROOT / "timesformer/models" / network).read_text()))
    if isinstance(node, ast.Name)
}
OF_PYSLOWFAST = {
    "MODEL.ARCH",
    "MODEL.HEAD_ACT",
}  # in its own configs, which are read with its files


@cache
def sources() -> dict[str, str]:
    """Source of every module that may read keys. Declaring and checking a key isn't using it."""
    paths = [*(ROOT / "timesformer").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in paths
        if path.parent.name != "config"
    }


@cache
def names_read(path: str) -> tuple[set[str], set[str]]:
    """Return the attributes that a file reads, and these together with its one-word strings."""
    nodes = list(ast.walk(ast.parse(sources()[path])))
    attributes = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    strings = {
        node.value for node in nodes if isinstance(node, ast.Constant) if type(node.value) is str
    }
    return attributes, attributes | strings


@pytest.mark.parametrize("key", sorted(KEYS))
def test_key_is_read(key: str) -> None:
    # `cfg.SOLVER.BASE_LR`, `solver.BASE_LR` and `cfg["TRAIN"].AMP` count; text about a key doesn't.
    if key in KNOBS:  # of `Architecture`, read all at once: what counts is that a network uses it
        assert KNOBS[key] in NAMES, f"no network uses {KNOBS[key]}"
        return
    group, _, name = key.rpartition(".")
    readers = []
    for path in sources():
        attributes, words = names_read(path)
        if name in attributes and (not group or group in words):
            readers.append(path)
    assert bool(readers) != (key in IN_CONFIG), f"read by {readers or 'nothing'}: {key}"


def test_no_unknown_key_is_named() -> None:
    groups = {key.split(".")[0] for key in KEYS if "." in key}
    full_key = re.compile(rf"\b(?:{'|'.join(groups)})\.[A-Z][A-Z0-9_]*\b")
    unknown = {
        (path, key)
        for path, text in sources().items()
        for key in full_key.findall(text)
        if key not in KEYS and key not in OF_PYSLOWFAST
    }
    assert unknown == set()
