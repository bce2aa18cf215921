"""Who started a process: torchrun, srun, or a person, also where SLURM's variables are set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from timesformer.config.layout import ranks
from timesformer.config.validate import check_devices
from timesformer.utils.errors import ConfigError
from timesformer.utils.launchers import (
    FIRST_PORT,
    PORTS,
    check_tasks,
    hostnames,
    job_in_words,
    of_srun,
    port_of_job,
    tasks,
    tasks_per_node,
)

STEP = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.delenv(name, raising=False)


def say(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def cfg(gpus: int, shards: int = 1) -> SimpleNamespace:
    return SimpleNamespace(NUM_GPUS=gpus, NUM_SHARDS=shards)


def test_a_step_of_srun_is_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, **STEP)
    found = tasks(4, 1)
    assert found is not None
    assert found[1:5] == (5, 8, 1, 4)
    port = int(found.meeting.removeprefix("tcp://gpu07:"))
    assert FIRST_PORT <= port < FIRST_PORT + PORTS
    assert str(found) == "srun in SLURM job 77 started 8 processes (2 nodes × 4)"
    assert ranks(cfg(4)) == ranks(cfg(0)) == (4, 2)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "5")
    assert tasks(4, 1).meeting == "tcp://10.0.0.1:5"  # type: ignore[union-attr]


def test_an_old_srun_says_less(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, SLURM_JOB_ID="77", SLURM_STEP_ID="0", SLURM_NTASKS="2", SLURM_PROCID="1")
    say(monkeypatch, SLURM_LOCALID="0", SLURM_NODELIST="a,b", SLURM_TASKS_PER_NODE="1(x2)")
    found = tasks(1, 1)
    assert found is not None
    assert (found[1:5], found.meeting[:8]) == ((1, 2, 0, 1), "tcp://a:")


@pytest.mark.parametrize(
    "variables",
    [
        # The script of `sbatch --ntasks 8`, where srun hasn't been called; a shell of salloc; a
        # shell by `srun --pty`, or the interactive step of salloc.
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "4(x2)"},
        {**STEP, "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {**STEP, "SLURM_STEP_NUM_TASKS": "", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967290"},
    ],
)
def test_a_shell_within_a_job_is_one_process(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    say(monkeypatch, **variables)
    assert of_srun() is None
    assert ranks(cfg(4)) == (4, 1)
    check_tasks(4, 1)


def test_torchrun_within_srun_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, **STEP, RANK="3", WORLD_SIZE="4", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2")
    found = tasks(4, 1)
    assert found is not None
    assert found == ("torchrun", 3, 4, 1, 2, "env://")


def test_nodes_by_hand_within_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, **STEP)
    assert tasks(4, 2) is None
    assert ranks(cfg(4, 2)) == (4, 2)
    check_tasks(4, 2)


def test_tasks_that_dont_fit_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, **STEP)
    assert tasks(8, 1) is None
    with pytest.raises(
        ConfigError, match=r"^NUM_GPUS 8: srun .* --ntasks-per-node 8 .* NUM_GPUS 4;"
    ):
        check_devices(cfg(8))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"srun started .* for 4 .* 1 usable .*--gpus-per-node"):
        check_devices(cfg(4))
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "5,3")
    with pytest.raises(ConfigError, match=r"8 tasks don't spread evenly .*\(5,3\)"):
        tasks(4, 1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login1", ["login1"]),
        ("a,b-2,c.d", ["a", "b-2", "c.d"]),
        ("gpu[01-03,07],x", ["gpu01", "gpu02", "gpu03", "gpu07", "x"]),
        ("gpu[9-11]-ib", ["gpu9-ib", "gpu10-ib", "gpu11-ib"]),
        ("r[1-2]n[08-09]", ["r1n08", "r1n09", "r2n08", "r2n09"]),
    ],
)
def test_lists_of_nodes(text: str, names: list[str]) -> None:
    assert hostnames(text) == names


@pytest.mark.parametrize("text", ["", "gpu[1-", "gpu[a-b]", "gpu1]", "gpu[]"])
def test_what_is_no_list_of_nodes(text: str) -> None:
    with pytest.raises(ConfigError, match="list of nodes"):
        hostnames(text)


def test_numbers_of_tasks() -> None:
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    with pytest.raises(ConfigError, match="tasks on each node"):
        tasks_per_node("4x2")


def test_ports_follow_from_the_start_of_a_step() -> None:
    starts = [{"SLURM_JOB_ID": "77"}, {"SLURM_JOB_ID": "78"}]
    starts += [starts[0] | {"SLURM_STEP_ID": "1"}, starts[0] | {"SLURM_RESTART_COUNT": "1"}]
    assert len({port_of_job(start) for start in starts}) == 4
    assert port_of_job(starts[0]) == port_of_job({**starts[0], "SLURM_STEP_ID": "0"})


def test_the_job_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert job_in_words() == ""
    say(monkeypatch, SLURM_JOB_ID="77", SLURM_RESTART_COUNT="0")
    assert job_in_words() == "SLURM job 77"
    say(monkeypatch, SLURM_RESTART_COUNT="2")
    assert job_in_words() == "SLURM job 77, restart 2"


def test_who_counts_pods_says_nothing_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubeflow's RANK and WORLD_SIZE: two pods of a GPU each aren't two GPUs of one node."""
    say(monkeypatch, RANK="1", WORLD_SIZE="2", MASTER_ADDR="job-master-0", MASTER_PORT="23456")
    with pytest.raises(ConfigError, match=r"not LOCAL_RANK and LOCAL_WORLD_SIZE.*in each pod"):
        tasks(1, 1)
    say(monkeypatch, RANK="0", WORLD_SIZE="1")  # one pod, in which NUM_GPUS says how many there are
    assert tasks(8, 1) is None
