"""Sweeps of runs that train nothing: order, failures, resuming, kills."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from children import PATIENCE, running
from fake_runs import notes, reproduce_fakes, top1

from timesformer.studies import preparation, sweep
from timesformer.utils.errors import UserError
from timesformer.utils.processes import is_alive

ORDER = ["--figure", "order", "--seeds", "2"]  # 12 runs
ONE_SEED = ["--figure", "order", "--seeds", "1"]  # 6
PICTURE, NUMBERS = "order_synthetic.png", "order_synthetic.csv"


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / NUMBERS).open(newline="") as file:
        return list(csv.DictReader(file))


def times(log: Path, what: str) -> Counter[str]:
    return Counter(name for kind, name, _ in notes(log) if kind == what)


def wait_for(fact: Callable[[], object]) -> None:
    end = time.monotonic() + 30 * PATIENCE
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `out`, in which a figure is complete, and the `log` of its runs."""
    folder = tmp_path_factory.mktemp("swept")
    reproduce_fakes([*ONE_SEED, "--out", str(folder / "out")], folder / "log")
    return folder


@pytest.fixture
def complete_sweep(swept: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of it: log and out."""
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    return tmp_path / "log", tmp_path / "out"


def test_all_runs_are_done_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    reproduce_fakes([*ORDER, "--jobs", "2", "--out", str(out)], log)
    said = capsys.readouterr().out
    assert "order: 12 runs, 12 to do" in said
    assert "[12/12] " in said
    assert len(times(log, "end")) == 12
    assert {*times(log, "start").values(), *times(log, "end").values()} == {1}
    for row in table(out):
        runs = row["runs"].split()
        assert [float(row["seed_0"]), float(row["seed_1"])] == [top1(name) for name in runs]
        assert row["n_seeds"] == "2"
        assert float(row["low"]) < float(row["mean"]) < float(row["high"])
        assert (out / "runs" / runs[0] / "command.txt").read_text().startswith("timesformer run ")
        assert "thinking" in (out / "runs" / runs[0] / "output.txt").read_text()
    assert (out / PICTURE).stat().st_size > 10_000
    assert not (out / ".lock").exists()

    # Again: nothing is to be done, and another study takes what it needs of it.
    before = (out / NUMBERS).read_bytes()
    with pytest.raises(UserError, match="has runs already: --resume takes those that are complete"):
        reproduce_fakes([*ORDER, "--out", str(out)], log)
    reproduce_fakes([*ORDER, "--resume", "--out", str(out)], log)
    assert len(notes(log)) == 24
    assert (out / NUMBERS).read_bytes() == before
    reproduce_fakes(["--figure", "positions", "--seeds", "2", "--resume", "--out", str(out)], log)
    assert "positions: 12 runs, 4 complete, 8 to do" in capsys.readouterr().out
    assert {*times(log, "end").values()} == {1}


def test_a_test_of_other_settings_is_not_taken(complete_sweep: tuple[Path, Path]) -> None:
    log, out = complete_sweep
    words = [*ONE_SEED, "--out", str(out)]
    (first, *_) = sorted((out / "runs").iterdir())
    text = (first / "stats.jsonl").read_text()
    (first / "stats.jsonl").write_text(text.replace('"1x1"', '"1x3"'))
    reproduce_fakes([*words, "--resume"], log)
    assert times(log, "end") - Counter({*times(log, "end")}) == Counter([first.name])


@pytest.mark.parametrize("tested", ["another/checkpoints/", "checkpoint_epoch_00001", "best"])
def test_a_test_of_another_model_is_not_taken(
    tested: str, complete_sweep: tuple[Path, Path]
) -> None:
    """Somebody tested a model of another run, of another epoch or the best one, in the folder."""
    log, out = complete_sweep
    words = [*ONE_SEED, "--out", str(out)]
    (first, *_) = sorted((out / "runs").iterdir())
    stats = json.loads((first / "stats.jsonl").read_text())
    old = f"{first.name}/checkpoints/" if "/" in tested else "checkpoint_epoch_00004"
    new = tested.replace("best", "checkpoint_best")
    assert old in stats["checkpoint"]
    stats["checkpoint"] = stats["checkpoint"].replace(old, new)
    (first / "stats.jsonl").write_text(json.dumps(stats) + "\n")
    reproduce_fakes([*words, "--resume"], log)
    assert times(log, "end") - Counter({*times(log, "end")}) == Counter([first.name])


def test_a_figure_with_numbers_is_not_lost_to_one_without(
    complete_sweep: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = complete_sweep
    words = [*ONE_SEED, "--out", str(out)]
    before = [(out / name).read_bytes() for name in (PICTURE, NUMBERS)]
    for stats in (out / "runs").glob("*/stats.jsonl"):
        stats.unlink()
    with pytest.raises(SystemExit):
        reproduce_fakes([*words, "--resume"], log, failing="seed0")
    assert [(out / name).read_bytes() for name in (PICTURE, NUMBERS)] == before
    assert "no run is complete, so no figure is drawn" in capsys.readouterr().out


def test_a_figure_of_other_settings_is_not_replaced(complete_sweep: tuple[Path, Path]) -> None:
    log, out = complete_sweep
    words = [*ONE_SEED, "--out", str(out)]
    before, runs = (out / NUMBERS).read_bytes(), len(notes(log))
    with pytest.raises(UserError, match=r"order_synthetic\.csv: is of other settings .* --out"):
        reproduce_fakes([*words, "--resume", "SOLVER.MAX_EPOCH", "5"], log)
    assert ((out / NUMBERS).read_bytes(), len(notes(log))) == (before, runs)
    more = [*words, "--seeds", "2", "--resume", "LOG_PERIOD", "5"]  # another place, no other run
    reproduce_fakes(more, log)
    assert [row["n_seeds"] for row in table(out)] == ["2"] * 6
    (out / NUMBERS).write_text("no table")
    reproduce_fakes(more, log)
    assert len(table(out)) == 6


def test_a_model_that_others_need_and_cannot_read_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    words = ["--figure", "order", "--seeds", "1", "--out", str(out)]
    reproduce_fakes(words, log, start=True)
    (images,) = (out / "runs").glob("images-*")
    reproduce_fakes([*words, "--resume"], log, start=True)  # nobody needs it any more
    assert times(log, "end")[images.name] == 1
    (dependent, *_) = sorted((out / "runs").glob("static-*"))
    (dependent / "stats.jsonl").unlink()
    capsys.readouterr()
    reproduce_fakes([*words, "--resume"], log, start=True)  # fakes leave no checkpoint
    said = capsys.readouterr().out
    assert "order: 7 runs, 5 complete, 2 to do" in said
    assert "[2/2] " in said
    again = times(log, "end") - Counter({*times(log, "end")})
    assert again == Counter([images.name, dependent.name])
    (dependent / "stats.jsonl").unlink()
    with mock.patch.object(sweep, "has_checkpoint", return_value=True):
        reproduce_fakes([*words, "--resume"], log, start=True)
    assert times(log, "end")[images.name] == 2


def test_a_test_that_failed_is_not_taken(complete_sweep: tuple[Path, Path]) -> None:
    """It writes its line, and ends in an error as too many videos can't be read."""
    log, out = complete_sweep
    words = [*ONE_SEED, "--out", str(out)]
    (first, second, *_) = sorted((out / "runs").iterdir())
    for folder, failed in ((first, 6), (second, 5)):  # of 100 DATA.MAX_FAILED allows 5
        stats = folder / "stats.jsonl"
        counts = f'{{"videos": 100, "failed_videos": {failed}, '
        stats.write_text(stats.read_text().replace("{", counts, 1))
    reproduce_fakes([*words, "--resume"], log)
    assert times(log, "end") - Counter({*times(log, "end")}) == Counter([first.name])


def test_a_failure_is_one_line_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    words = ["--figure", "pretraining", "--seeds", "1", "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        reproduce_fakes(words, log, failing="images-space_only", start=True)
    assert end.value.code == 1
    captured = capsys.readouterr()
    (line,) = [s for s in captured.out.splitlines() if "no videos" in s]
    assert ": failed: there are no videos (status 2; see " in line
    assert captured.out.count("not run: needs images-space_only") == 4
    assert captured.err == "error: 5 runs failed; --resume tries them again\n"
    assert len(times(log, "end")) == 2
    with (out / "pretraining_synthetic.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["n_seeds"] for row in rows] == ["1", "0", "0"] * 2
    assert rows[1]["interval"] == "no run is complete"
    assert rows[0]["interval"] == "none: one seed"
    assert (out / "pretraining_synthetic.png").exists()

    reproduce_fakes([*words, "--resume"], log, start=True)
    assert len(times(log, "end")) == 7
    assert {*times(log, "end").values()} == {1}


def test_never_more_than_jobs_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reproduce_fakes([*ORDER, "--jobs", "3", "--out", str(tmp_path / "out")], log, seconds=0.05)
    at_once, most = 0, 0
    for what, _, _ in notes(log):
        at_once += 1 if what == "start" else -1
        most = max(most, at_once)
    assert 1 < most <= 3


def test_a_run_waits_for_the_one_that_it_starts_from(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["--figure", "pretraining", "--seeds", "1", "--jobs", "4", "--out", str(tmp_path)]
    reproduce_fakes(words, log, seconds=0.3, start=True)
    order = [(what, name) for what, name, _ in notes(log)]
    image = next(i for i, (what, name) in enumerate(order) if (what, name[:6]) == ("end", "images"))
    starts = [
        i
        for i, (what, name) in enumerate(order)
        if what == "start" and not name.startswith("images") and "init=scratch" not in name
    ]
    assert len(starts) == 4
    assert min(starts) > image


def test_killed_and_resumed(tmp_path: Path) -> None:
    """Nothing that is complete runs again, nothing is left behind, the numbers are the same."""
    log, out = tmp_path / "log", tmp_path / "out"
    words = [*ORDER, "--jobs", "2", "--out", str(out), "--resume"]
    with running(reproduce_fakes, words, log, 0.3, output=tmp_path / "said") as (run,):
        wait_for(lambda: len(times(log, "end")) >= 3)
        run.kill()
        wait_for(lambda: not any(is_alive(pid) for what, _, pid in notes(log)))
    done = times(log, "end")
    assert 3 <= len(done) < 12
    (first, *_) = done
    with (out / "runs" / first / "stats.jsonl").open("a") as file:
        file.write('{"split": "test_f')  # cut by the kill
    reproduce_fakes(words, log)
    assert len(times(log, "end")) == 12
    assert {*times(log, "end").values()} == {1}
    straight = tmp_path / "straight"
    reproduce_fakes([*ORDER, "--out", str(straight)], tmp_path / "log2")
    assert (out / NUMBERS).read_bytes() == (straight / NUMBERS).read_bytes()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ended_by_a_signal(sent: signal.Signals, status: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = [*ORDER, "--jobs", "2", "--out", str(tmp_path / "out")]
    with running(reproduce_fakes, words, log, 60.0, output=tmp_path / "said") as (run,):
        wait_for(lambda: len(notes(log)) == 2)
        os.kill(run.pid, sent)
        assert run.wait(30) == status
        assert not any(is_alive(pid) for _, _, pid in notes(log))
        assert "Traceback" not in run.said
    assert not (tmp_path / "out/.lock").exists()


def test_two_sweeps_in_one_folder(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    with running(reproduce_fakes, [*ORDER, "--out", str(out)], log, 60.0, output=tmp_path / "said"):
        wait_for(lambda: notes(log))
        with pytest.raises(UserError, match=r"in use by another run.*choose another --out"):
            reproduce_fakes([*ORDER, "--out", str(out), "--resume"], tmp_path / "log2")


def run_on(gpus: int) -> SimpleNamespace:
    return SimpleNamespace(cfg=SimpleNamespace(NUM_GPUS=gpus))


def test_shares_of_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sweep, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert sweep._share(run_on(0), 1, 3) == {"OMP_NUM_THREADS": "2"}
    assert sweep._share(run_on(0), 1, 16) == {"OMP_NUM_THREADS": "1"}
    assert sweep._share(run_on(2), 1, 2)["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert "CUDA_VISIBLE_DEVICES" not in sweep._share(run_on(2), 0, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert sweep._share(run_on(0), 0, 2)["OMP_NUM_THREADS"] == "5"


def test_too_few_gpus_for_the_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(preparation, "check_devices", lambda cfg: None)
    words = ["--figure", "order", "--data", "ssv2", "--jobs", "2", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"--jobs 2: with NUM_GPUS 2 that takes 4 GPUs, and 3"):
        reproduce_fakes(
            [*words, "NUM_GPUS", "2", "DATA.PATH_TO_DATA_DIR", str(tmp_path)], tmp_path / "log"
        )


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            [],
            "DATA.PATH_TO_DATA_DIR isn't set: add it with the folder of the lists of Kinetics-400",
        ),
        (["DATA.PATH_TO_DATA_DIR", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_data_that_is_not_there(pairs: list[str], said: str, tmp_path: Path) -> None:
    words = ["--figure", "order", "--data", "kinetics", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=said):
        reproduce_fakes([*words, "NUM_GPUS", "0", *pairs], tmp_path / "log")
