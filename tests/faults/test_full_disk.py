"""Disks that are full: what is saved stays, one line says so, and training goes on or stops."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from campaign import tell
from children import command, finish, lines, running, words
from test_kills import RANDOM, differing, what_a_run_left

from timesformer.utils.checkpoint import (
    get_checkpoint_dir,
    get_last_checkpoint,
    read_checkpoint,
)

LINE = re.compile(
    r"^(error: )?\S+checkpoint_\S+\.pyth: can't write the checkpoint "
    r"\((No space left on device|File too large)\): it needs [\d,]+ bytes, [\d,]+ are free; "
    r"earlier checkpoints are intact",
    re.MULTILINE,
)


def run(argv: Sequence[str], tries: int = 4) -> None:
    """Run it, with other patience for the last checkpoint, and more zeal to save again."""
    from timesformer.engine import saving, state

    saving.AGAIN, saving.LAST_PAUSE, state.LAST_TRIES = 0.0, 0.5, tries
    command("run", argv)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"can't mount a disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_fills_and_is_freed(small_disk, synthetic_dir, tmp_path, background):
    """A run of six epochs: the disk fills after the first checkpoint, and is freed much later."""
    options = RANDOM | {"SOLVER__MAX_EPOCH": 6, "TRAIN__EVAL_PERIOD": 0}
    options |= {"TRAIN__CHECKPOINT_ASYNC": background, "TRAIN__KEEP_CHECKPOINTS": 2}
    straight, output = tmp_path / "straight", small_disk / "run"
    with running(run, words(synthetic_dir, straight, **options), output=tmp_path / "a") as runs:
        assert finish(runs, 200) == [0], runs[0].said[-2000:]
    argv = words(synthetic_dir, output, **options)
    ballast, refused, intact = small_disk / "ballast", 0, True
    with running(run, argv, 200, output=tmp_path / "b") as runs:
        deadline = time.monotonic() + 100
        while not get_checkpoint_dir(output).is_dir() or not get_last_checkpoint(output):
            assert time.monotonic() < deadline, runs[0].said[-2000:]
            time.sleep(0.005)
        with contextlib.suppress(OSError):  # it has what there was
            ballast.write_bytes(bytes(8 << 20))
        while runs[0].said.count("can't write") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            if runs[0].process.exitcode is not None:
                break
        refused = len(LINE.findall(runs[0].said))
        last = get_last_checkpoint(output)
        intact = last is not None and "model_state" in read_checkpoint(last, require_digest=True)
        ballast.unlink()
        ended = finish(runs, 200)
    differ = differing(what_a_run_left(straight)["weights"], what_a_run_left(output)["weights"])
    stumps = [p.name for p in get_checkpoint_dir(output).iterdir() if p.name.endswith(".tmp")]
    tell(
        f"a disk that fills ({'by a thread' if background else 'at once'})",
        refused_at_least=refused, former_intact=intact, status=ended[0],
        weights_that_differ=len(differ), stumps=len(stumps),
        epochs_trained=len({s["epoch"] for s in lines(output, "train_epoch")}),
    )  # fmt: skip
    assert refused, runs[0].said[-3000:]
    assert (intact, ended, differ, stumps) == (True, [0], [], []), runs[0].said[-3000:]


@pytest.mark.dist
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("policy", ["go_on", "stop"])
@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_stays_full(synthetic_dir, tmp_path, policy, ranks, background):
    """The limit of a file's size stands in for it. Ranks end together, with one line."""
    options = RANDOM | {"TRAIN__ON_FAILED_SAVE": policy, "TRAIN__CHECKPOINT_ASYNC": background}
    argv = words(synthetic_dir, tmp_path / "run", **options)
    limits = {"RLIMIT_FSIZE": 100_000}
    with running(run, argv, ranks=ranks, output=tmp_path / "said", limits=limits) as runs:
        ended = finish(runs, 200)
        said = [r.said for r in runs]
    epochs = len(lines(tmp_path / "run", "train_epoch"))
    tell(
        f"a full disk ({policy}, {ranks} ranks, {'by a thread' if background else 'at once'})",
        statuses=ended, epochs_trained=epochs, lines_that_say_so=len(LINE.findall(said[0])),
    )  # fmt: skip
    assert ended == [2] * ranks, said
    assert all("Traceback" not in text for text in said)
    assert LINE.search(said[0])
    assert "error: " in said[-1]
    assert epochs == 3 if policy == "go_on" else epochs < 3
    assert not [p for p in get_checkpoint_dir(tmp_path / "run").iterdir() if p.suffix == ".tmp"]
