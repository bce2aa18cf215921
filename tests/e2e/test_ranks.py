"""Several processes equal one: losses, weights and scores, however they are started."""

from __future__ import annotations

import socket
import subprocess
import sys

import numpy as np
import pytest
from small_run import PYTHONPATH, RECIPE, ROOT, run_tool, small_options, stats

from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

pytestmark = pytest.mark.dist

DROP_PATH = {"TIMESFORMER__DROP_PATH_RATE": 0.3}


def torchrun(ranks: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")


def run(data, output, launcher=(), **changes):
    done = run_tool(
        "run_net.py",
        *["--cfg", str(RECIPE), *small_options(data, output, **DROP_PATH, **changes)],
        launcher=launcher,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def losses(output):
    return [line["loss"] for line in stats(output, "train_iter")]


@pytest.fixture(scope="module")
def seven_videos(synthetic_dir, tmp_path_factory):
    """The small dataset with 7 test videos, which don't divide by 2 ranks; some don't exist.

    And 4 of validation, one batch, so that a second rank has none.
    """
    folder = tmp_path_factory.mktemp("seven")
    for path in synthetic_dir.iterdir():
        (folder / path.name).symlink_to(path)
    for split, count, absent in (("train", None, 5), ("val", 4, None), ("test", 7, 4)):
        rows = (synthetic_dir / f"{split}.csv").read_text().splitlines()[:count]
        if absent is not None:
            rows[absent] = f"absent_{split}.mp4 0"
        (folder / f"{split}.csv").unlink()
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


def broken_videos(output):
    return (output / "broken_videos.csv").read_text().splitlines()[1:]


@pytest.fixture(scope="module")
def one_process(seven_videos, tmp_path_factory):
    output = tmp_path_factory.mktemp("one")
    run(seven_videos, output)
    return output


def test_two_gloo_processes_equal_one(seven_videos, one_process, tmp_path):
    run(seven_videos, tmp_path, torchrun(2))
    start = stats(tmp_path, "start")[0]
    assert (start["ranks"], start["clips_per_rank"], start["global_batch"]) == (2, 4, 8)
    assert len(losses(tmp_path)) == 6
    assert losses(tmp_path) == pytest.approx(losses(one_process), abs=1e-5)
    one, two = (read_checkpoint(get_last_checkpoint(o)) for o in (one_process, tmp_path))
    for name, value in one["model_state"].items():
        np.testing.assert_allclose(two["model_state"][name], value, atol=1e-4, err_msg=name)
    assert stats(tmp_path, "train_epoch")[-1]["replaced_videos"] == 1
    assert broken_videos(tmp_path) == broken_videos(one_process)
    assert len(broken_videos(tmp_path)) == 2


def test_two_processes_score_every_video_once_and_to_the_bit(seven_videos, one_process, tmp_path):
    weights = get_last_checkpoint(one_process)
    options = {"TRAIN__ENABLE": False, "TEST__CHECKPOINT_FILE_PATH": weights}
    run(seven_videos, tmp_path, torchrun(2), **options)
    one, two = (np.load(folder / "scores.npz") for folder in (one_process, tmp_path))
    assert one["per_view"].shape == (7, 3, 6)
    for key in ("per_view", "scores", "labels", "paths"):
        np.testing.assert_array_equal(one[key], two[key])
    assert np.isnan(one["per_view"][4]).all()
    (line,) = stats(tmp_path, "test_final")
    assert (line["videos"], line["failed_videos"]) == (7, 1)
    assert broken_videos(tmp_path) == [b for b in broken_videos(one_process) if "absent_test" in b]


def test_accumulation_on_two_ranks_equals_one_process(seven_videos, tmp_path):
    options = {"TRAIN__BATCH_SIZE": 4, "TEST__ENABLE": False}
    run(seven_videos, tmp_path / "one", **options, TRAIN__EVAL_PERIOD=0)
    run(seven_videos, tmp_path / "two", torchrun(2), **options)
    assert stats(tmp_path / "two", "start")[0]["accumulation"] == 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_two_shards_started_by_hand(seven_videos, one_process, tmp_path):
    """As on two nodes: --num_shards, --shard_id, --init_method; each has half the batch."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    command = [
        *[sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(RECIPE)],
        *["--num_shards", "2", "--init_method", address],
    ]
    options = small_options(seven_videos, tmp_path, TRAIN__BATCH_SIZE=4, **DROP_PATH)
    shards = [
        subprocess.Popen(
            [*command, "--shard_id", str(i), *options],
            env={"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    errors = [shard.communicate(timeout=200)[1] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], errors
    assert losses(tmp_path) == pytest.approx(losses(one_process), abs=1e-5)
    assert len(stats(tmp_path, "test_final")) == 1  # only rank 0 writes


def test_error_under_torchrun_is_shown(synthetic_dir, tmp_path):
    done = run_tool(
        "run_net.py",
        *["--cfg", str(RECIPE)],
        *small_options(synthetic_dir, tmp_path, TRAIN__BATCH_SIZE=3, GLOBAL_BATCH_SIZE=3),
        launcher=torchrun(2),
    )
    assert done.returncode != 0
    assert "error: TRAIN.BATCH_SIZE" in done.stderr
