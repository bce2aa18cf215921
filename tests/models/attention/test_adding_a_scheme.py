"""The worked example of docs/adding_an_attention_scheme.md runs, and keeps the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attention_oracles
import pytest
import torch
from attention_contract import (
    check_contract,
    check_start,
    check_still,
    random_tokens,
    registered_cases,
    small_model,
)
from golden_recipe import fill_

from timesformer.models.attention import ATTENTION_REGISTRY, TokenGrid
from timesformer.models.weights.load import load_pretrained

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "adding_an_attention_scheme.md"
SCHEME = "rows_then_space"


@pytest.fixture
def scheme() -> Iterator[str]:
    """The document's code blocks, executed in turn; what they register is removed again."""
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    try:
        for i, block in enumerate(blocks):
            exec(compile(block, f"{DOCUMENT.name}, block {i + 1}", "exec"), {"__name__": SCHEME})
        yield SCHEME
    finally:
        for table in (
            ATTENTION_REGISTRY._obj_map,
            attention_oracles.ORACLES,
            attention_oracles.STARTS,
        ):
            table.pop(SCHEME, None)


def test_example_keeps_the_contract(scheme):
    assert scheme in registered_cases()
    check_contract(scheme, attention_oracles.ORACLES[scheme])
    check_start(scheme, attention_oracles.STARTS[scheme])
    check_still(scheme)


def test_example_starts_from_image_weights(scheme):
    image_model, model = fill_(small_model("space_only"), seed=6), fill_(small_model(scheme))
    report = load_pretrained(model, image_model.state_dict())
    assert "blocks.1.row_attn.qkv.weight" in report.copied
    assert "blocks.1.row_fc.weight" in report.zeroed


def test_a_wrong_oracle_is_noticed(scheme):
    """The contract can fail: rows aren't columns."""
    oracle = attention_oracles
    columns = oracle.in_turn(
        oracle.extra("row", lambda at: oracle.number(at.w)), oracle.image(oracle.frame)
    )
    with pytest.raises(AssertionError, match="not close"):
        check_contract(scheme, columns)


def test_example_is_gone_afterwards():
    assert SCHEME not in ATTENTION_REGISTRY
    assert SCHEME not in attention_oracles.ORACLES


def test_a_step_sees_its_row_and_nothing_else(scheme):
    """What the document says: change one patch, and only its row moves in the first step."""
    grid = TokenGrid(1, 3, 2, 4)
    block = fill_(small_model(scheme)).eval().blocks[0]
    x = random_tokens(scheme, grid)[:, 1:]
    changed = x.clone()
    changed[:, 0] += 1  # frame 0, row 0, column 0
    with torch.no_grad():
        steps = [
            block.step("row", y, "b (h w t) d -> (b h) (w t) d", grid.axes)[0] for y in (x, changed)
        ]
    moved = (steps[0] != steps[1]).any(-1).reshape(2, 4, 3)
    assert moved[0].all()
    assert not moved[1].any()
