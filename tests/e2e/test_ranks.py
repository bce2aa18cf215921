"""Several processes equal one: losses, weights and scores, however they are started."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from children import command, finish, free_port, running, words
from small_run import read_npz, run_tool, stats

from timesformer.commands.run import main
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

pytestmark = pytest.mark.dist

# All that is drawn in a step; tubes in the first of two epochs.
DROP_PATH = {"TIMESFORMER__DROP_PATH_RATE": 0.3, "TRAIN__TUBE_KEEP": 0.5}


def torchrun(ranks: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")


def run(data, output, **changes):
    """In this process, on one thread as the ranks: more of them would round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        main(words(data, output, **DROP_PATH, **changes))
    finally:
        torch.set_num_threads(threads)


def run_ranks(data, output, **changes):
    """On two ranks, in the environment that torchrun makes."""
    line = words(data, output, **DROP_PATH, **changes)
    with running(command, "run", line, output=output.parent / "said", ranks=2) as ranks:
        assert finish(ranks, 100) == [0, 0], [rank.said[-3000:] for rank in ranks]


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
    line = words(seven_videos, tmp_path, **DROP_PATH)
    done = run_tool("run_net.py", *line, launcher=torchrun(2))
    assert done.returncode == 0, done.stderr[-3000:]
    start = stats(tmp_path, "start")[0]
    assert (start["ranks"], start["clips_per_rank"], start["global_batch"]) == (2, 4, 8)
    assert len(losses(tmp_path)) == 6
    assert losses(tmp_path) == pytest.approx(losses(one_process), abs=1e-5)
    one, two = (read_checkpoint(get_last_checkpoint(o)) for o in (one_process, tmp_path))
    for name, value in one["model_state"].items():
        its = two["model_state"][name]
        if name.endswith("qkv.bias"):
            # Softmax ignores the keys' bias: its gradient is rounding, which AdamW blows up.
            value, its = (torch.cat([v[: len(v) // 3], v[-len(v) // 3 :]]) for v in (value, its))
        np.testing.assert_allclose(its, value, atol=1e-4, err_msg=name)
    assert stats(tmp_path, "train_epoch")[-1]["replaced_videos"] == 1
    assert broken_videos(tmp_path) == broken_videos(one_process)
    assert len(broken_videos(tmp_path)) == 2


def test_two_processes_score_every_video_once_and_to_the_bit(seven_videos, one_process, tmp_path):
    weights = get_last_checkpoint(one_process)
    options = {"TRAIN__ENABLE": False, "TEST__CHECKPOINT_FILE_PATH": weights}
    run_ranks(seven_videos, tmp_path / "two", **options)
    tmp_path /= "two"
    one, two = (read_npz(folder / "scores.npz") for folder in (one_process, tmp_path))
    assert one["per_view"].shape == (7, 3, 6)
    for key in ("per_view", "scores", "labels", "paths"):
        np.testing.assert_array_equal(one[key], two[key])
    assert np.isnan(one["per_view"][4]).all()
    (line,) = stats(tmp_path, "test_final")
    assert (line["videos"], line["failed_videos"]) == (7, 1)
    assert broken_videos(tmp_path) == [b for b in broken_videos(one_process) if "absent_test" in b]


def test_accumulation_on_two_ranks_equals_one_process(seven_videos, tmp_path):
    # 6 batches of 4 clips, of which smaller clips make one step of 2 × 12, where it might be 64.
    options = {"TRAIN__BATCH_SIZE": 4, "TEST__ENABLE": False, "TRAIN__MULTIGRID": "long"}
    run(seven_videos, tmp_path / "one", **options, TRAIN__EVAL_PERIOD=0)
    run_ranks(seven_videos, tmp_path / "two", **options)
    epochs = [line["iter"] for line in stats(tmp_path / "two", "train_iter")]
    assert epochs == ["1/1", "1/3", "2/3", "3/3"]
    assert stats(tmp_path / "two", "start")[0]["accumulation"] == 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_two_shards_started_by_hand(seven_videos, one_process, tmp_path):
    """As on two nodes: --num_shards, --shard_id, --init_method; each has half the batch."""
    address = f"tcp://localhost:{free_port()}"
    line = words(seven_videos, tmp_path / "run", TRAIN__BATCH_SIZE=4, **DROP_PATH)
    node = ["--num_shards", "2", "--init_method", address, "--shard_id"]
    with (
        running(command, "run", [*node, "0", *line], output=tmp_path / "0") as first,
        running(command, "run", [*node, "1", *line], output=tmp_path / "1") as second,
    ):
        assert finish([*first, *second], 100) == [0, 0], [n.said for n in (*first, *second)]
    tmp_path /= "run"
    assert losses(tmp_path) == pytest.approx(losses(one_process), abs=1e-5)
    assert len(stats(tmp_path, "test_final")) == 1  # only rank 0 writes


def test_error_of_ranks_is_shown(synthetic_dir, tmp_path):
    line = words(synthetic_dir, tmp_path / "run", TRAIN__BATCH_SIZE=3, GLOBAL_BATCH_SIZE=3)
    with running(command, "run", line, output=tmp_path / "said", ranks=2) as ranks:
        assert finish(ranks, 100) == [2, 2]
        assert all("error: TRAIN.BATCH_SIZE" in rank.said for rank in ranks)
