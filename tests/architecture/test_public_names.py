"""Import paths that people use: they stay where they are, and pages name no others."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
PAGES += (ROOT / "examples").glob("*.ipynb")
TO_BE_WRITTEN = {"timesformer/models/attention/rows_then_space.py"}  # by the reader
PUBLIC = """
timesformer TimeSformer create_model list_models load_pretrained __version__
timesformer.config.defaults get_cfg
timesformer.config.validate check
timesformer.datasets.build build_dataset DATASET_REGISTRY video_options
timesformer.datasets.decoder load_clip load_clips load_frames decode_all probe VideoError
timesformer.datasets.loader construct_loader
timesformer.datasets.video_dataset VideoDataset
timesformer.engine.evaluate test perform_test eval_epoch
timesformer.engine.start load_train_checkpoint
timesformer.engine.tested load_test_checkpoint
timesformer.engine.train train train_epoch
timesformer.models.architecture Architecture
timesformer.models.attention ATTENTION_REGISTRY SpaceTimeBlock TokenGrid register_scheme
timesformer.models.build build_model MODEL_REGISTRY
timesformer.models.create create_model from_pretrained list_models save_pretrained RECIPES
timesformer.models.pretrained load_pretrained LoadReport
timesformer.models.vit TimeSformer VisionTransformer Block Attention Mlp PatchEmbed
timesformer.utils.checkpoint get_path_to_checkpoint get_last_checkpoint has_checkpoint
timesformer.utils.checkpoint save_checkpoint load_checkpoint make_checkpoint_dir
timesformer.utils.checkpoint read_checkpoint write_checkpoint
timesformer.utils.misc launch_job
timesformer.utils.parser parse_args load_config
"""


@pytest.mark.parametrize("line", PUBLIC.strip().splitlines())
def test_public_path(line: str) -> None:
    module, *names = line.split()
    found = import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []


def exists(path: str) -> bool:
    """Whether a dotted path is a module, or something in one."""
    module, names = path, []
    while module:
        try:
            value = import_module(module)
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
            continue
        for name in names:
            value = getattr(value, name, None)
        return value is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_what_there_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\btimesformer(?:\.[A-Za-z_][A-Za-z0-9_]*)+", text))
    imports = re.findall(r"from (timesformer[\w.]*) import ([\w, ]+)", text)
    named |= {f"{module}.{name.strip()}" for module, names in imports for name in names.split(",")}
    assert sorted(path for path in named if not exists(path)) == []
    files = set(re.findall(r"\btimesformer/[\w/]+\.py", text)) - TO_BE_WRITTEN
    assert sorted(f for f in files if not (ROOT / f).exists()) == []
