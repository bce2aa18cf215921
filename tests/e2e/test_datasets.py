"""Every data set, in its real layout, trains an epoch and tests on its shipped recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from dataset_layouts import (
    Options,
    shipped_names,
    write_diving48,
    write_folder,
    write_howto100m,
    write_kinetics_strings,
    write_multi_label,
    write_ssv2_frames,
    write_ssv2_webm,
)
from small_run import ROOT, stats

from timesformer.commands.run import main
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

TINY = {
    "NUM_GPUS": 0,
    "GLOBAL_BATCH_SIZE": 8,
    "LOG_MODEL_INFO": False,
    "TRAIN.BATCH_SIZE": 4,
    "TEST.BATCH_SIZE": 8,
    "DATA.TRAIN_JITTER_SCALES": [32, 40],
    "DATA.TRAIN_CROP_SIZE": 32,
    "DATA.TEST_CROP_SIZE": 32,
    "TIMESFORMER.PRETRAINED_MODEL": "''",
    "TIMESFORMER.EMBED_DIM": 24,
    "TIMESFORMER.DEPTH": 1,
    "TIMESFORMER.NUM_HEADS": 3,
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "DATA_LOADER.NUM_WORKERS": 0,
    "TENSORBOARD.ENABLE": False,
}


class Case(NamedTuple):
    recipe: str
    write: Callable[[Path], Options]
    videos: int  # of the test
    views: str
    class_names: list[str]


CASES = {
    "ssv2_webm": Case(
        "SSv2/TimeSformer_divST_8_224", write_ssv2_webm, 3, "1x3", shipped_names("ssv2")
    ),
    "ssv2_frames": Case(
        "SSv2/TimeSformer_divST_8_224", write_ssv2_frames, 3, "1x3", shipped_names("ssv2")
    ),
    "ssv2_frame_lists": Case(
        "SSv2/TimeSformer_divST_8_224",
        partial(write_ssv2_frames, lists=True),
        *(3, "1x3", shipped_names("ssv2")),
    ),
    "diving48": Case(
        "Diving48/TimeSformer_divST_8x32_224", write_diving48, 4, "1x3", shipped_names("diving48")
    ),
    "howto100m": Case("HowTo100M/TimeSformer_divST_8x32_224", write_howto100m, 2, "48x1", []),
    "folder": Case(
        "Finetune/TimeSformer_divST_8x32_224_small", write_folder, 2, "1x3", ["jump", "run"]
    ),
    "kinetics_strings": Case(
        "Kinetics/TimeSformer_divST_8x32_224",
        *(write_kinetics_strings, 3, "1x3", ["air drumming", "jump rope", "zumba"]),
    ),
    "multi_label": Case("Kinetics/TimeSformer_divST_8x32_224", write_multi_label, 3, "1x3", []),
}


def words(case: Case, data: Path, output: Path) -> list[str]:
    """The command line after run_net.py."""
    options = TINY | case.write(data) | {"OUTPUT_DIR": output}
    pairs = [str(word) for pair in options.items() for word in pair]
    return ["--cfg", str(ROOT / "configs" / f"{case.recipe}.yaml"), *pairs]


def assert_trained_and_tested(case: Case, output: Path) -> None:
    (start,), (test,) = stats(output, "start"), stats(output, "test_final")
    assert start["train_videos"] == 8
    assert len(stats(output, "val")) == 1
    assert (test["videos"], test["views"]) == (case.videos, case.views)
    assert ("map" in test) == (case.write is write_multi_label)
    checkpoint = get_last_checkpoint(output)
    assert checkpoint
    assert read_checkpoint(checkpoint)["class_names"] == case.class_names


@pytest.mark.parametrize("name", CASES)
def test_trains_and_tests(name: str, tmp_path: Path) -> None:
    main(words(CASES[name], tmp_path / "data", tmp_path / "out"))
    assert_trained_and_tested(CASES[name], tmp_path / "out")
