"""SIGKILL at random moments: nothing is lost but time."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign import scaled, tell
from children import command, finish, lines, running, words
from shard_fixtures import pack
from small_run import read_npz

from timesformer.config.defaults import get_cfg
from timesformer.engine.interruption import Interruption
from timesformer.engine.saving import Saver
from timesformer.utils.checkpoint import get_checkpoint_dir, get_last_checkpoint, read_checkpoint
from timesformer.utils.errors import UserError
from timesformer.utils.torch_file import write_checkpoint

KILLS = scaled(100)  # of whole runs: they train, save within epochs, validate and test
OTHER_KILLS = scaled(24)  # of runs that are shared between ranks; of runs that read shards
STOPS = scaled(50)  # the same runs, asked to stop
SAVE_KILLS = scaled(200)  # within a save

LAYOUTS = [(workers, ranks, acc) for workers in (0, 2) for ranks in (1, 2) for acc in (1, 2)]
Layout = tuple[int, int, int]
EPOCHS = 3  # of 3 steps
# Everything random is on.
RANDOM: dict[str, Any] = {
    "SOLVER__MAX_EPOCH": EPOCHS,
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "TEST__ENABLE": True,
    "TEST__SAVE_RESULTS_PATH": "scores.npz",
    "TRAIN__CHECKPOINT_PERIOD": 2,
    "TRAIN__CHECKPOINT_STEPS": 1,
}


# What else a run may be than one of files that each rank has a copy of the model for.
KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "fsdp": {"TRAIN__SHARDING": "fsdp"},
    "parts": {"TRAIN__SHARDING": "fsdp", "TRAIN__SHARDED_CHECKPOINTS": True},
    "shards": {},
}


def what_a_run_left(output: Path) -> dict[str, Any]:
    content = read_checkpoint(get_last_checkpoint(output))
    steps = {(s["epoch"], s["iter"]): s["loss"] for s in lines(output, "train_iter")}
    validated = {s["epoch"]: (s["loss"], s["top1_acc"]) for s in lines(output, "val")}
    return {
        "epoch": (content["epoch"], content.get("step", 0)),
        "weights": content["model_state"],
        "optimizer": content["optimizer_state"],
        "losses": steps,
        "validation": validated,
        "scores": torch.from_numpy(read_npz(output / "scores.npz")["scores"]),
    }


def differing(a: Any, b: Any, place: str = "") -> list[str]:
    """Places in which two values aren't the same to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [place]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{place}: other keys {sorted(map(str, a.keys() ^ b.keys()))[:5]}"]
        return [d for key in a for d in differing(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differing(x, y, f"{place}/{i}")
        ]
    return [] if a == b else [f"{place}: {a!r:.40} is not {b!r:.40}"]


class Straight:
    """Runs that nothing cuts, one a kind and layout, made when they are asked for."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.made: dict[tuple[str, Layout], tuple[dict[str, Any], float]] = {}

    def options(self, output: Path, layout: Layout, kind: str = "") -> list[str]:
        """Words of the command line of such a run, into another folder."""
        workers, _, accumulation = layout
        more: dict[str, Any] = {}
        if kind == "shards":
            more["DATA__PATH_PREFIX"] = self.folder / "shards"
            if not more["DATA__PATH_PREFIX"].exists():
                pack(self.data, more["DATA__PATH_PREFIX"])
        batch = {"TRAIN__BATCH_SIZE": 8 // accumulation, "DATA_LOADER__NUM_WORKERS": workers}
        return words(self.data, output, **RANDOM, **batch, **more, **KINDS[kind])

    def __call__(self, layout: Layout, kind: str = "") -> tuple[dict[str, Any], float]:
        """What such a run has left, and the seconds that it took."""
        if (kind, layout) not in self.made:
            ranks = layout[1]
            output = self.folder / f"straight{kind}{LAYOUTS.index(layout)}"
            argv = self.options(output, layout, kind)
            began, said = time.monotonic(), output.with_suffix(".txt")
            with running(command, "run", argv, ranks=ranks, output=said) as runs:
                assert finish(runs, 200) == [0] * ranks, runs[0].said[-3000:]
            self.made[kind, layout] = what_a_run_left(output), time.monotonic() - began
        return self.made[kind, layout]


@pytest.fixture(scope="module")
def straight(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """Shared by all campaigns of this file."""
    return Straight(synthetic_dir, tmp_path_factory.mktemp("straight"))


def gone_on(argv: list[str], ranks: int, output: Path, expected: dict[str, Any]) -> str:
    """Let the same command go on, and say in what it hasn't come to what was expected, or ""."""
    with running(command, "run", argv, ranks=ranks, output=output.with_suffix(".txt")) as runs:
        if (ended := finish(runs, 200)) != [0] * ranks:
            return f"going on ended with {ended}: {runs[0].said[-300:]}"
    return str(differing(expected, what_a_run_left(output))[:4] or "")


@pytest.mark.dist
@pytest.mark.parametrize("kind", KINDS)
def test_kill_and_resume_equals_the_straight_run(tmp_path, straight, kind):
    """Kills of a whole run, or of one of its ranks, whose other one then has to end by itself."""
    rng = random.Random(f"7{kind}")
    wrong, orphans, hung, one_rank, began_at = [], 0, 0, 0, []
    kills = OTHER_KILLS if kind else KILLS
    # One process shares its model with nobody.
    layouts = [
        layout for layout in LAYOUTS if layout[1] == 2 or "TRAIN__SHARDING" not in KINDS[kind]
    ]
    for kill in range(kills):
        layout = layouts[kill % len(layouts)]
        ranks = layout[1]
        expected, seconds = straight(layout, kind)
        output = tmp_path / f"kill{kill}"
        argv = straight.options(output, layout, kind)
        said = tmp_path / f"kill{kill}.txt"
        with running(command, "run", argv, ranks=ranks, output=said) as runs:
            time.sleep(rng.uniform(0.1, 1.0) * seconds)
            # Before they have met, the other one waits for it, as a launcher must end it then.
            if ranks > 1 and rng.random() < 0.3 and (output / "stats.jsonl").exists():
                one_rank += 1
                rng.choice(runs).kill()
                hung += None in finish(runs, 60)
            for run in runs:
                run.kill()
            orphans += sum(len(run.left_behind()) for run in runs)
        if problem := gone_on(argv, ranks, output, expected):
            wrong.append(f"kill {kill} {layout}: {problem}")
        else:
            began_at.append(place_of_start(output))
            shutil.rmtree(output)
    tell(
        f"kill and resume {kind}".strip(),
        kills=kills,
        of_one_rank=one_rank,
        differ=len(wrong),
        processes_left_behind=orphans,
        hung_after_a_ranks_death=hung,
        resumed_at_epoch_and_step=counts(began_at),
    )
    assert not wrong, "\n".join(wrong)
    assert not orphans
    assert not hung


@pytest.mark.dist
def test_asked_to_stop_and_gone_on_equals_the_straight_run(tmp_path, straight):
    """A signal to all ranks, or to one of them; then the same command, until it is through."""
    rng = random.Random(8)
    wrong, early, late, one_rank, slowest, began_at = [], 0, 0, 0, 0.0, []
    for stop in range(STOPS):
        layout = LAYOUTS[stop % len(LAYOUTS)]
        ranks = layout[1]
        expected, seconds = straight(layout)
        output, said = tmp_path / f"stop{stop}", tmp_path / f"stop{stop}.txt"
        argv = straight.options(output, layout)
        argv += ["TRAIN.CHECKPOINT_STEPS", "0"]
        with running(command, "run", argv, ranks=ranks, output=said) as runs:
            time.sleep(rng.uniform(0.1, 1.0) * seconds)
            alone = ranks > 1 and rng.random() < 0.5
            began = (output / "stats.jsonl").exists()
            asked, number = time.monotonic(), rng.choice([signal.SIGTERM, signal.SIGUSR1])
            for run in [rng.choice(runs)] if alone and began else runs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.pid, number)
            ended = finish(runs, 60)
            slowest = max(slowest, time.monotonic() - asked)
        if ended == [0] * ranks:
            late += 1
        elif not began:  # it had nothing to save, and ends by the signal
            early += 1
        elif ended != [75] * ranks:
            wrong.append(f"stop {stop} {layout}: ended with {ended}: {runs[0].said[-300:]}")
        one_rank += alone
        if problem := gone_on(argv, ranks, output, expected):
            wrong.append(f"stop {stop} {layout}: {problem}")
        else:
            began_at.append(place_of_start(output))
            shutil.rmtree(output)
    tell(
        "asked to stop and gone on",
        signals=STOPS,
        of_one_rank=one_rank,
        before_the_start=early,
        after_the_end=late,
        differ=len(wrong),
        seconds_at_most=f"{slowest:.1f}",
        resumed_at_epoch_and_step=counts(began_at),
    )
    assert not wrong, "\n".join(wrong)


def place_of_start(output: Path) -> tuple[int, int]:
    last = lines(output, "start")[-1]
    return last["first_epoch"], last["first_step"]


def counts(places: list[tuple[int, int]]) -> str:
    return str({place: places.count(place) for place in sorted(set(places))})


def save_for_ever(folder: str, megabytes: int) -> None:
    """Write checkpoints one after the other; the number of each is all over its weights."""
    epoch = max([0, *(int(p.stem[-5:]) for p in Path(folder).glob("checkpoint_epoch_*.pyth"))])
    while True:
        epoch += 1
        weights = {"w": torch.full((megabytes << 18,), float(epoch))}
        path = Path(folder) / f"checkpoint_epoch_{epoch:05d}.pyth"
        write_checkpoint(path, {"epoch": epoch - 1, "model_state": weights})
        for old in sorted(Path(folder).glob("checkpoint_epoch_*.pyth"))[:-3]:
            old.unlink()


def train_for_ever(folder: str, megabytes: int) -> None:
    """Do so as training does, which changes its weights in place while a thread writes."""
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.TRAIN.KEEP_CHECKPOINTS = str(Path(folder).parent), 3
    saver = Saver(cfg, Interruption(cfg))
    epoch = max([0, *(int(p.stem[-5:]) for p in Path(folder).glob("checkpoint_epoch_*.pyth"))])
    weights = {"w": torch.zeros(megabytes << 18)}
    while True:
        epoch += 1
        weights["w"].fill_(epoch)
        path = Path(folder) / f"checkpoint_epoch_{epoch:05d}.pyth"
        saver.save(path, {"epoch": epoch - 1, "model_state": weights})


@pytest.mark.parametrize("save", [save_for_ever, train_for_ever])
def test_kills_while_saving(tmp_path, save):
    """Whatever lies under a checkpoint's name is whole, and stumps go with the next save."""
    rng = random.Random(11)
    folder = get_checkpoint_dir(tmp_path)
    folder.mkdir(parents=True)
    stumps = invalid = lost = within = 0
    newest = 0
    for _ in range(SAVE_KILLS):
        with running(save, str(folder), 4, output=tmp_path / "said.txt") as (run,):
            deadline = time.monotonic() + 30
            seen = {p.name for p in folder.iterdir()}
            while {p.name for p in folder.iterdir()} == seen and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.08))
            os.kill(run.pid, signal.SIGKILL)
            run.process.join()
        now = [p.name for p in folder.iterdir()]
        left = [name for name in now if name.endswith(".tmp")]
        within += bool(left)
        stumps += len(left) > 1  # one is of this kill; a former one should have been swept
        for path in folder.glob("checkpoint_epoch_*.pyth"):
            try:
                content = read_checkpoint(path, require_digest=True)
                whole = bool((content["model_state"]["w"] == content["epoch"] + 1).all())
            except UserError:
                whole = False
            invalid += not whole
        last = get_last_checkpoint(tmp_path)
        number = int(last.stem[-5:]) if last else 0
        lost += number < newest
        newest = max(newest, number)
    write_checkpoint(folder / "checkpoint_epoch_99999.pyth", {"epoch": 99998, "model_state": {}})
    swept = not [p for p in folder.iterdir() if p.name.endswith(".tmp")]
    tell(
        f"kills while saving ({save.__name__})", kills=SAVE_KILLS, left_a_stump=within,
        invalid_checkpoints=invalid,
        former_checkpoints_lost=lost, old_stumps_kept=stumps,
        stumps_after_the_last_save=0 if swept else 1, checkpoints_written=newest,
    )  # fmt: skip
    assert within, "no kill fell into a save: the campaign tests nothing"
    assert (invalid, lost, stumps, swept) == (0, 0, 0, True)
