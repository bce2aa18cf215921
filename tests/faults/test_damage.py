"""Checkpoints that rot, or are cut short: every one is noticed, and a run goes on from another."""

from __future__ import annotations

import logging
import random

import pytest
from campaign import scaled, tell
from small_run import small_cfg

from timesformer.commands.inspect_checkpoint import main as inspect
from timesformer.engine.train import train
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_checkpoint,
    read_checkpoint,
)
from timesformer.utils.errors import WeightsError

FLIPS, CUTS = scaled(400), scaled(50)


@pytest.mark.parametrize("background", [True, False])
def test_damage_is_noticed_and_the_run_falls_back(synthetic_dir, tmp_path, caplog, background):
    cfg = small_cfg(synthetic_dir, tmp_path, TRAIN__CHECKPOINT_ASYNC=background, TEST__ENABLE=False)
    train(cfg)
    logging.getLogger("timesformer").propagate = True
    older, newest = (get_path_to_checkpoint(tmp_path, epoch) for epoch in (1, 2))
    assert get_last_checkpoint(tmp_path) == newest
    whole, rng = newest.read_bytes(), random.Random(13)
    noticed = fell_back = said = inspected = 0
    for case in range(FLIPS + CUTS):
        data = bytearray(whole)
        if case < FLIPS:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        newest.write_bytes(data)
        caplog.clear()
        try:
            read_checkpoint(newest, require_digest=True)
        except WeightsError:
            noticed += 1
        fell_back += get_last_checkpoint(tmp_path) == older
        said += f"{newest}: damaged" in caplog.text and "falling back" in caplog.text
        try:
            inspect([str(newest)])
        except SystemExit as end:
            inspected += end.code == 1
    # Training itself goes on from the older one, and makes the newer one again.
    train(cfg)
    again = get_last_checkpoint(tmp_path)
    tell(
        f"damage ({'by a thread' if background else 'at once'})", flips=FLIPS, truncations=CUTS,
        noticed=noticed, noticed_by_inspect_checkpoint=inspected, fell_back=fell_back,
        fell_back_and_said_so=said,
    )  # fmt: skip
    assert (noticed, inspected, fell_back, said) == (FLIPS + CUTS,) * 4
    assert again == newest
