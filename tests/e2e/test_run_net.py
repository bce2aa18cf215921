"""tools/run_net.py as a user runs it: training, testing, golden scores, one-line errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_model import tiny_model
from golden_recipe import fill_
from small_run import RECIPE, complaint_of, read_npz, run_tool, small_options, stats

from timesformer.commands.run import main

GOLDEN_OPTIONS = {
    "DATA__NUM_FRAMES": 4,
    "DATA__SAMPLING_RATE": 16,
    "DATA__TEST_CLIP_SAMPLING": "legacy",
    "TEST__NUM_ENSEMBLE_VIEWS": 2,
    "TEST__DATASET": "kinetics",
    "TEST__BATCH_SIZE": 12,
    "TEST__SAVE_RESULTS_PATH": "scores.npz",
    "TRAIN__ENABLE": False,
    "TIMESFORMER__EMBED_DIM": 96,
    "TIMESFORMER__DEPTH": 3,
    "TIMESFORMER__NUM_HEADS": 3,
    "MODEL__NUM_CLASSES": 10,
}


def test_golden_multiview_scores(shared_videos, tmp_path, golden):
    """The whole published test path on real files: 2 clips × 3 crops each."""
    numbers = np.load(golden / "multiview_tiny.npz")
    rows = zip(numbers["videos"], numbers["labels"], strict=True)
    (tmp_path / "test.csv").write_text("".join(f"{name} {label}\n" for name, label in rows))
    state = fill_(tiny_model("divided_space_time")).state_dict()
    torch.save(
        {"epoch": 14, "model_state": {f"model.{k}": v for k, v in state.items()}},
        tmp_path / "published.pyth",
    )
    options = small_options(
        tmp_path,
        tmp_path / "out",
        DATA__PATH_PREFIX=shared_videos,
        TEST__CHECKPOINT_FILE_PATH=tmp_path / "published.pyth",
        **GOLDEN_OPTIONS,
    )
    main(["--cfg", str(RECIPE), *options])
    saved = read_npz(tmp_path / "out" / "scores.npz")
    np.testing.assert_allclose(saved["per_view"], numbers["per_view"], atol=1e-4)
    np.testing.assert_allclose(saved["scores"], numbers["scores"], atol=1e-4)
    assert saved["labels"].tolist() == numbers["labels"].tolist()


def test_trains_and_tests(synthetic_dir, tmp_path, capsys):
    options = small_options(synthetic_dir, tmp_path, DATA_LOADER__NUM_WORKERS=1)
    main(["--cfg", str(RECIPE), *options])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["split"] == "test_final"
    assert last["views"] == "1x3"
    assert {"top1_acc", "top5_acc"} <= last.keys()
    assert [line["epoch"] for line in stats(tmp_path, "val")] == ["1/2", "2/2"]
    assert (tmp_path / "checkpoints" / "checkpoint_epoch_00002.pyth").is_file()
    assert (tmp_path / "scores.npz").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SOLVER__BASE_LRR": 0.1}, r"SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR?"),
        ({"DATA__PATH_TO_DATA_DIR": "/nowhere"}, "/nowhere/train.csv: not there yet"),
        (
            {"TRAIN__DATASET": "kinetics", "DATA__PATH_TO_DATA_DIR": "/nowhere"},
            "/nowhere/train.csv",
        ),
        (
            {"TRAIN__ENABLE": False, "TEST__CHECKPOINT_FILE_PATH": "/nowhere.pyth"},
            "TEST.CHECKPOINT_FILE_PATH: there is no file /nowhere.pyth",
        ),
        (
            {"TRAIN__ENABLE": False},
            "set TEST.CHECKPOINT_FILE_PATH to a checkpoint or a run's folder, or train first",
        ),
        ({"NUM_GPUS": 2}, "NUM_GPUS 2"),
    ],
)
def test_errors_are_one_line(synthetic_dir, tmp_path, changes, message):
    printed = complaint_of(
        main, "--cfg", RECIPE, *small_options(synthetic_dir, tmp_path, **changes)
    )
    assert message in printed
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1


def test_an_error_of_the_program_itself_is_one_line(synthetic_dir, tmp_path):
    done = run_tool(
        "run_net.py", "--cfg", str(RECIPE), *small_options(synthetic_dir, tmp_path, NUM_GPU=2)
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{good} 0\n{good}\n", "train.csv, line 2"),
        ("{good} 0\nabsent.mp4 1\n", "absent.mp4"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_lists_name_their_row(synthetic_dir, tmp_path, lines, message, workers):
    good = (synthetic_dir / "train.csv").read_text().split()[0]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(lines.format(good=good))
    options = small_options(
        tmp_path,
        tmp_path / "out",
        TRAIN__DATASET="kinetics",
        DATA__PATH_PREFIX=synthetic_dir,
        TRAIN__BATCH_SIZE=2,
        GLOBAL_BATCH_SIZE=2,
        DATA_LOADER__NUM_WORKERS=workers,
    )
    printed = complaint_of(main, "--cfg", RECIPE, *options)
    assert message in printed
    assert len(printed.splitlines()) == 1
