"""What started this process beside others, and where they meet: torchrun, or SLURM's srun.

Both say it in environment variables. Those of SLURM are also set where nothing else was started: in
the script of sbatch, in the shell of salloc. So what counts is the step, which only srun makes.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from timesformer.utils.errors import ConfigError
from timesformer.utils.text import counted

# Of ports that all ranks derive from the job: above those of services, below those that systems
# give to outgoing connections (from 32768 on Linux).
FIRST_PORT, PORTS = 15000, 17000
NO_STEP = 4294960000  # numbers from here on stand for a job's script and the like
_BETWEEN_GROUPS = re.compile(r",(?![^\[]*\])")  # commas, but those in brackets


class Tasks(NamedTuple):
    """This process among those that were started with it.

    Attributes:
        by: "torchrun" or "srun".
        rank: of all processes, from 0.
        size: number of all processes.
        local_rank: on this node, from 0.
        local_size: processes on this node.
        meeting: `init_method` for them, unless the command line has another.
    """

    by: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    meeting: str

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.size // self.local_size

    def __str__(self) -> str:
        job = f" in {said}" if self.by == "srun" and (said := job_in_words()) else ""
        spread = f"{counted(self.nodes, 'node')} × {self.local_size}"
        return f"{self.by}{job} started {counted(self.size, 'process', 'processes')} ({spread})"


def tasks(num_gpus: int, num_shards: int) -> Tasks | None:
    """Return this process among others if it was started with them, for one run; else None.

    torchrun's environment decides over the config. srun's does if the config can mean it: one task
    for each of NUM_GPUS, or for the CPU, and no NUM_SHARDS, which says that nodes are started by
    hand.

    Args:
        num_gpus: NUM_GPUS.
        num_shards: NUM_SHARDS.

    Raises:
        ConfigError: processes don't spread evenly over nodes.
    """
    if found := of_torchrun():
        return found
    found = of_srun()
    return found if found and num_shards == 1 and num_gpus in (0, found.local_size) else None


def check_tasks(num_gpus: int, num_shards: int) -> None:
    """Make sure that the tasks of an srun are those that the config asks for.

    Else each of them would be a run of its own, in the same folder.

    Raises:
        ConfigError: saying what to change.
    """
    found = of_srun()
    if num_shards == 1 and found and not tasks(num_gpus, num_shards):
        raise ConfigError(
            f"NUM_GPUS {num_gpus}: {found}, and a run has a task for each GPU: give srun "
            f"--ntasks-per-node {num_gpus} (and --gpus-per-node {num_gpus}), or set NUM_GPUS "
            f"{found.local_size}; for runs that have nothing to do with each other, put `env -u "
            "SLURM_STEP_NUM_TASKS -u SLURM_STEP_ID` before the command"
        )


def of_torchrun() -> Tasks | None:
    """Return what torchrun says, None if it didn't start this process.

    Raises:
        ConfigError: nodes have other numbers of processes; or it is another program that says how
            many there are, as Kubeflow does of pods, and not what each is on its node.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if lacking := [name for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE") if name not in os.environ]:
        if size == 1:
            return None
        raise ConfigError(
            f"RANK {rank} and WORLD_SIZE {size} are set, as by torchrun, but not "
            f"{' and '.join(lacking)}, which say what is on this node: start torchrun (in each "
            "pod, where they count pods), set these too, or unset RANK and WORLD_SIZE"
        )
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if size % local_size:
        raise ConfigError(
            f"torchrun: {size} processes don't spread evenly over nodes of {local_size}; "
            "give every node the same --nproc-per-node"
        )
    return Tasks("torchrun", rank, size, local_rank, local_size, "env://")


def of_srun() -> Tasks | None:
    """Return what srun says, None if it started this process alone or not at all.

    Raises:
        ConfigError: nodes have other numbers of tasks, or a list of nodes can't be read.
    """
    env = os.environ
    step, size = _number("SLURM_STEP_ID"), _number("SLURM_STEP_NUM_TASKS")
    if size is None and step is not None and step < NO_STEP:
        size = _number("SLURM_NTASKS")
    rank, local_rank = _number("SLURM_PROCID"), _number("SLURM_LOCALID")
    if size is None or size < 2 or rank is None or local_rank is None:
        return None
    spread = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    counts = tasks_per_node(spread) or [size]
    if len({*counts}) > 1 or sum(counts) != size:
        raise ConfigError(
            f"srun: {size} tasks don't spread evenly over its nodes ({spread}); give it "
            "--ntasks-per-node"
        )
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    listed = next(filter(None, map(env.get, names)), "localhost")
    host = env.get("MASTER_ADDR") or hostnames(listed)[0]
    port = env.get("MASTER_PORT") or port_of_job(env)
    return Tasks("srun", rank, size, local_rank, counts[0], f"tcp://{host}:{port}")


def tasks_per_node(text: str) -> list[int]:
    """Return the numbers that SLURM abbreviates, e.g. [4, 4, 3] for "4(x2),3".

    Raises:
        ConfigError: it means nothing.
    """
    counts: list[int] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not match:
            raise ConfigError(f"srun: can't read the tasks on each node, {text!r:.100}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def hostnames(text: str) -> list[str]:
    """Return the names in a list of nodes, as `scontrol show hostnames` does.

    Args:
        text: e.g. "gpu[01-03,07],login1": gpu01, gpu02, gpu03, gpu07, login1.

    Raises:
        ConfigError: it isn't one.
    """
    found = [name for group in _BETWEEN_GROUPS.split(text) for name in _expanded(group)]
    if any(not name or set(name) & set("[], ") for name in found):
        raise ConfigError(f"srun: can't read the list of nodes {text!r:.100}")
    return found


def port_of_job(env: Mapping[str, str]) -> int:
    """Return a port on which all ranks of a job's step agree; another one after a requeue."""
    key = (("SLURM_JOB_ID", 1), ("SLURM_STEP_ID", 7919), ("SLURM_RESTART_COUNT", 104729))
    found = (int(env[name]) * factor for name, factor in key if env.get(name, "").isdecimal())
    return FIRST_PORT + sum(found) % PORTS


def job() -> dict[str, str]:
    """Return which start of which SLURM job this process belongs to; {} outside of one."""
    names = {"cluster": "SLURM_CLUSTER_NAME", "id": "SLURM_JOB_ID", "start": "SLURM_RESTART_COUNT"}
    found = {key: os.environ.get(name, "") for key, name in names.items()}
    return {**found, "start": found["start"] or "0"} if found["id"] else {}


def job_in_words() -> str:
    """Return "SLURM job 123", with which restart it is; "" outside of one."""
    known = job()
    again = f", restart {known['start']}" if known and known["start"] != "0" else ""
    return f"SLURM job {known['id']}{again}" if known else ""


def _expanded(group: str) -> list[str]:
    """Return the names of `prefix[1-3,5]suffix[…]…`."""
    parts = re.split(r"\[([^\]]*)\]", group)  # text and ranges, alternating
    choices = [[part] if i % 2 == 0 else _numbers(part) for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


def _numbers(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if not (low.isdecimal() and (high or low).isdecimal()):
            raise ConfigError(f"srun: can't read the list of nodes …[{text:.100}]")
        found += [f"{n:0{len(low)}}" for n in range(int(low), int(high or low) + 1)]
    return found


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
