"""Starting processes: who is who, sums over ranks, and what a failing rank does to the others."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from timesformer.config.defaults import get_cfg
from timesformer.utils import starting
from timesformer.utils.distributed import (
    World,
    all_reduce_sum,
    barrier,
    gather_objects,
    get_world,
    how_started,
    is_main,
)
from timesformer.utils.errors import ANOTHER_ENDED, Stopped, UserError
from timesformer.utils.logging import errors_in_log, setup_logging
from timesformer.utils.starting import launch

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


def cpu_cfg(output: Path, **changes):
    cfg = get_cfg()
    cfg.NUM_GPUS, cfg.OUTPUT_DIR = 0, str(output)
    cfg.merge_from_list([word for pair in changes.items() for word in pair])
    return cfg


def meeting_point() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"tcp://localhost:{free.getsockname()[1]}"


def report(cfg) -> None:
    """Every rank writes where it stands and what the ranks' sum is."""
    world = get_world()
    total = all_reduce_sum(torch.tensor([1.0 + world.rank, 1.0]))
    barrier()
    place = [world.rank, world.size, world.local_rank, world.local_size]
    found = {"place": place, "main": is_main(), "sum": total.tolist()}
    found["objects"] = gather_objects({"rank": world.rank})
    found["threads"] = torch.get_num_threads()
    (Path(cfg.OUTPUT_DIR) / f"rank{world.rank}.json").write_text(json.dumps(found))


def reports(output: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(output.glob("rank*.json"))]


def fail_on_rank_0(cfg) -> None:
    if is_main():
        raise UserError("train.csv is missing")
    all_reduce_sum(torch.zeros(1))  # waits for rank 0, which never comes


def bug(cfg) -> None:
    _ = {}["a key of ours"]


def test_one_process_is_a_plain_call(tmp_path):
    launch(cpu_cfg(tmp_path), "unused", report)
    assert [r["place"] for r in reports(tmp_path)] == [[0, 1, 0, 1]]
    assert reports(tmp_path)[0]["sum"] == [1.0, 1.0]
    with pytest.raises(KeyError, match="a key of ours"):
        launch(cpu_cfg(tmp_path), "unused", bug)


def test_torchrun_environment_wins_over_the_config(tmp_path, monkeypatch):
    for name, value in zip(LAUNCHED[:4], "0101", strict=True):
        monkeypatch.setenv(name, value)
    launch(cpu_cfg(tmp_path, NUM_SHARDS=3, SHARD_ID=1), "unused", report)
    assert [r["place"] for r in reports(tmp_path)] == [[0, 1, 0, 1]]


def test_ranks_count_over_nodes(monkeypatch):
    worlds = []
    monkeypatch.setattr(starting, "_run", lambda cfg, where, func, world: worlds.append(world))
    cfg = cpu_cfg(Path(), NUM_SHARDS=2, SHARD_ID=1)
    launch(cfg, "unused", report)
    starting._child(3, cfg, "unused", report, 4, mp.SimpleQueue())
    assert worlds == [World(1, 2, 0, 1), World(7, 8, 3, 4)]


def test_tasks_of_srun_are_ranks(tmp_path, monkeypatch):
    step = {"STEP_NUM_TASKS": "4", "STEP_TASKS_PER_NODE": "2(x2)", "PROCID": "3", "LOCALID": "1"}
    for name, value in {**step, "JOB_ID": "77", "STEP_NODELIST": "n[1-2]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    met = []
    monkeypatch.setattr(
        starting, "_run", lambda cfg, where, func, world: met.append((where, world, world.how))
    )
    launch(cpu_cfg(tmp_path), "", report)
    launch(cpu_cfg(tmp_path), "tcp://here:1", report)
    launch(cpu_cfg(tmp_path, NUM_SHARDS=2), "", report)
    how = "srun in SLURM job 77 started 4 processes (2 nodes × 2)"
    assert met[0] == ("tcp://n1:15077", World(3, 4, 1, 2), how)
    assert met[1] == ("tcp://here:1", World(3, 4, 1, 2), how)
    assert met[2][:2] == (starting.BY_HAND, World(0, 2, 0, 1))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    launch(cpu_cfg(tmp_path), "", report)
    assert met[3][1:] == (World(), "one process in SLURM job 77, which started no others")


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        where = f"tcp://localhost:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^{where}: another program has this port: .*MASTER"):
            launch(cpu_cfg(tmp_path, NUM_SHARDS=2), where, report)


def tell(cfg) -> None:
    print(how_started(), how_started(), flush=True)


def test_how_ranks_were_started_is_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    launch(cpu_cfg(tmp_path), "", tell)
    assert capsys.readouterr().out == "one process in SLURM job 77, which started no others \n"


PEER = "[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:44433. GLHF!"


@pytest.mark.parametrize("text", [PEER, "Caught KeyError in DataLoader worker process 0."])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rank_that_loses_another_says_so(ranks, text, tmp_path, monkeypatch):
    def fail(cfg) -> None:
        setup_logging(str(tmp_path))
        with errors_in_log():
            raise RuntimeError(text)

    monkeypatch.setattr(starting.dist, "init_process_group", lambda *args, **kwargs: None)
    told = ANOTHER_ENDED if ranks == 2 and text == PEER else None
    cfg = cpu_cfg(tmp_path, NUM_SHARDS=ranks)
    with pytest.raises(UserError if told else RuntimeError, match=re.escape(told or text)):
        launch(cfg, "unused", fail)
    log = (tmp_path / "run.log").read_text()
    assert ("Traceback" in log) == (not told)
    assert (told or text) in log


@pytest.mark.dist
def test_spawned_processes_share_sums_and_cores(tmp_path):
    starting._spawn(cpu_cfg(tmp_path), "", report, local_size=2)  # on a free port
    found = reports(tmp_path)
    assert [r["place"] for r in found] == [[0, 2, 0, 2], [1, 2, 1, 2]]
    assert [r["main"] for r in found] == [True, False]
    assert [r["sum"] for r in found] == [[3.0, 2.0]] * 2
    assert [r["objects"] for r in found] == [[{"rank": 0}, {"rank": 1}]] * 2
    cores = os.cpu_count() or 1
    assert all(1 <= r["threads"] <= max(1, cores // 2) for r in found)


@pytest.mark.dist
def test_a_users_error_comes_once_and_ends_all_ranks(tmp_path, capfd):
    with pytest.raises(UserError, match=r"^train.csv is missing$"):
        starting._spawn(cpu_cfg(tmp_path), meeting_point(), fail_on_rank_0, local_size=2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.dist
def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(
        mp.ProcessRaisedException, match=r"in bug\n(.*\n)+KeyError: 'a key of ours'"
    ):
        starting._spawn(cpu_cfg(tmp_path), "unused", bug, local_size=1)


def test_torchrun_gets_no_traceback_of_what_is_one_line(tmp_path, monkeypatch):
    said = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(said))

    def ends(error):
        with pytest.raises(type(error)):
            starting._shown_by_torchrun(lambda: (_ for _ in ()).throw(error))
        return said.exists()

    assert not ends(Stopped("SIGTERM: saved", 75))
    assert ends(KeyError("a bug of ours"))
