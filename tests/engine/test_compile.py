"""Runs whose blocks are compiled, against runs whose aren't. Code is made, which takes minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from children import finish, running
from small_run import small_cfg, stats
from test_sharding import OPTIONS
from test_within_epoch import RANDOM, Cut, before_step, cut, left, same
from torch._dynamo.utils import counters

from timesformer.engine.evaluate import test as run_test
from timesformer.engine.train import train
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.starting import launch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]
COMPILED = {"TRAIN__COMPILE": True, "TEST__COMPILE": True}
ACCUMULATED = RANDOM | {"TRAIN__BATCH_SIZE": 8, "TIMESFORMER__DEPTH": 3}


def close(a: Any, b: Any) -> None:
    """Two states have the same names, and numbers that differ by rounding."""
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in stats(output, "train_iter")]


def test_a_run_goes_on_bit_for_bit_and_is_that_of_eager_code(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters.clear()
    train(small_cfg(synthetic_dir, tmp_path / "straight", **ACCUMULATED | COMPILED))
    # The trial; training, with half of the tubes and with all; validation, and of the average: each
    # of a block and of the last, of which CLS is read.
    assert counters["stats"]["unique_graphs"] == 1 + 2 * 4
    with monkeypatch.context() as patch:
        before_step(patch, 4, cut)
        with pytest.raises(Cut):
            train(small_cfg(synthetic_dir, tmp_path / "cut", **ACCUMULATED | COMPILED))
    train(small_cfg(synthetic_dir, tmp_path / "cut", **ACCUMULATED | COMPILED))
    assert same(left(tmp_path / "cut"), left(tmp_path / "straight"))

    with monkeypatch.context() as patch:  # the second half by eager code
        before_step(patch, 4, cut)
        with pytest.raises(Cut):
            train(small_cfg(synthetic_dir, tmp_path / "mixed", **ACCUMULATED | COMPILED))
    train(small_cfg(synthetic_dir, tmp_path / "mixed", **ACCUMULATED))
    train(small_cfg(synthetic_dir, tmp_path / "eager", **ACCUMULATED))
    eager = left(tmp_path / "eager")
    for name in ("straight", "mixed"):
        found = left(tmp_path / name)
        close(found["model_state"], eager["model_state"])
        close(found["ema_state"], eager["ema_state"])
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    assert "TRAIN.COMPILE" in (tmp_path / "mixed" / "run.log").read_text()

    tested = ACCUMULATED | {"TRAIN__ENABLE": False, "TEST__ENABLE": True}
    scores = [
        run_test(small_cfg(synthetic_dir, tmp_path / "straight", **tested, **more)).scores
        for more in ({}, {"TEST__COMPILE": True})
    ]
    close(*scores)


def train_ranks(data: Path, folder: Path) -> None:
    def work(cfg: Any) -> None:
        for name, options in RANKS.items():
            train(small_cfg(data, folder / name, **OPTIONS | options))

    launch(small_cfg(data, folder, **OPTIONS), "unused", work)


FSDP = {"TRAIN__SHARDING": "fsdp", "TIMESFORMER__ACT_CHECKPOINT": True}
RANKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "copies": COMPILED,
    "parts": COMPILED | FSDP,
}


@pytest.mark.dist
def test_ranks_that_have_copies_or_parts(synthetic_dir: Path, tmp_path: Path) -> None:
    with running(train_ranks, synthetic_dir, tmp_path, output=tmp_path / "said", ranks=2) as ranks:
        assert finish(ranks, 1500) == [0, 0], [rank.said[-3000:] for rank in ranks]
    plain, *others = (read_checkpoint(get_last_checkpoint(tmp_path / name)) for name in RANKS)
    for other in others:
        close(other["model_state"], plain["model_state"])
        close(other["ema_state"], plain["ema_state"])
